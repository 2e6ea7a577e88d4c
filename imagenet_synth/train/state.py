"""What training carries from step to step, and the step.

The same for diffusion stages and classifiers: they differ in the `Objective` alone.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagenet_synth.core.mesh import batch_sharding, gathered, param_shardings, replicated
from imagenet_synth.train.optim import Optimizer, make_optimizer

Batch = dict[str, jax.Array]
StepFn = Callable[['TrainState', Batch, Any], tuple['TrainState', dict[str, jax.Array]]]


class Objective(Protocol):
  """A network and what it is trained for. Hashable: equal objectives share one compilation."""

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh variables, with 'params' boxed in logical axis names."""

  def loss(
    self, variables: dict[str, Any], batch: Batch, context: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """(scalar loss, (metrics, updated variables other than 'params'))."""


@flax.struct.dataclass
class TrainState:
  """step, seed int32; params, extra (batch statistics, if any) and their averages; opt_state.

  The seed is carried, not compiled in: runs that differ in it alone share one compilation.
  """

  step: jax.Array
  seed: jax.Array
  params: Any
  ema: Any
  extra: Any
  ema_extra: Any
  opt_state: Any

  @property
  def sampling_variables(self) -> dict[str, Any]:
    """What sampling and evaluation use."""
    return {'params': self.ema, **self.ema_extra}


class Trainer:
  """The compiled pieces of one training run on one mesh; made by `make_trainer`.

  accumulate: parts of a batch that are computed one after the other, in less memory. Each part draws its own
  noise, so that the parts' numbers are not those of the whole batch, but of the same distribution.
  """

  def __init__(
    self,
    objective: Objective,
    optimizer: Optimizer,
    num_steps: int,
    ema_decay: float,
    mesh: Mesh,
    accumulate: int = 1,
  ):
    self.mesh = mesh
    self._objective, self._ema_decay, self._accumulate = objective, ema_decay, accumulate
    self._update = make_optimizer(optimizer, num_steps)
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    self.abstract = jax.eval_shape(self._fresh, 0)
    self.shardings = self._shardings(boxed)
    self.init = jax.jit(self._fresh, out_shardings=self.shardings)
    self._start_from = jax.jit(self._start, out_shardings=self.shardings)
    batch, whole = batch_sharding(mesh), replicated(mesh)
    self.step: StepFn = jax.jit(
      self._step,
      donate_argnums=0,
      in_shardings=(self.shardings, batch, whole),
      out_shardings=(self.shardings, whole),
    )

  def start_from(self, variables: Any, seed: int) -> TrainState:
    """A state at step 0 that starts from trained weights."""
    shardings = {'params': self.shardings.params, **self.shardings.extra}
    return self._start_from(jax.device_put(variables, shardings), seed)

  def like(self) -> Any:
    """Shapes and shardings of the state, to restore a checkpoint into."""
    return jax.tree.map(
      lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), self.abstract, self.shardings
    )

  def _fresh(self, seed: int) -> TrainState:
    return self._start(nn.unbox(self._objective.init(jax.random.key(seed))), seed)

  def _start(self, variables: dict[str, Any], seed: int) -> TrainState:
    params = variables['params']
    extra = {k: v for k, v in variables.items() if k != 'params'}
    # copies: the trees are donated together, so they must not share buffers
    ema, ema_extra = jax.tree.map(jnp.copy, (params, extra))
    return TrainState(jnp.int32(0), jnp.int32(seed), params, ema, extra, ema_extra, self._update.init(params))

  def _shardings(self, boxed: dict[str, Any]) -> TrainState:
    whole = replicated(self.mesh)
    params = param_shardings(self.mesh, boxed['params'])
    # a moment is laid out as its parameter; Adafactor's factored ones are small and stay whole
    like_param = lambda leaf, shape, sharding: sharding if leaf.shape == shape.shape else whole
    opt_state = optax.tree.map_params(
      self._update,
      like_param,
      self.abstract.opt_state,
      self.abstract.params,
      params,
      transform_non_params=lambda _: whole,
    )
    extra = jax.tree.map(lambda _: whole, self.abstract.extra)
    return TrainState(whole, whole, params, params, extra, extra, opt_state)

  def _step(self, state: TrainState, batch: Batch, context: Any) -> tuple[TrainState, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    if self._accumulate == 1:
      grads, metrics, extra = self._gradients(state.params, state.extra, batch, context, key)
    else:
      grads, metrics, extra = self._accumulated(state, batch, context, key)
    updates, opt_state = self._update.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # the average of the first steps would be that of the random start: let the horizon grow
    step = state.step + 1
    decay = jnp.minimum(self._ema_decay, step / (step + 10.0))
    ema, ema_extra = optax.incremental_update((params, extra), (state.ema, state.ema_extra), 1 - decay)
    metrics = {**metrics, 'grad_norm': optax.tree.norm(grads)}
    return TrainState(step, state.seed, params, ema, extra, ema_extra, opt_state), metrics

  def _gradients(
    self, params: Any, extra: Any, batch: Batch, context: Any, key: jax.Array
  ) -> tuple[Any, dict[str, jax.Array], Any]:
    def loss_fn(params):
      # explicitly: left to choose, the partitioner of jax 0.10 makes wrong gradients where both
      # `fsdp` and `tensor` cut a convolution
      params = jax.lax.with_sharding_constraint(params, gathered(self.shardings.params))
      return self._objective.loss({'params': params, **extra}, batch, context, key)

    (_, (metrics, extra)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return grads, metrics, extra

  def _accumulated(
    self, state: TrainState, batch: Batch, context: Any, key: jax.Array
  ) -> tuple[Any, dict[str, jax.Array], Any]:
    """Means over parts of the batch that are computed one after the other."""
    num = self._accumulate
    rows = NamedSharding(self.mesh, PartitionSpec(None, *batch_sharding(self.mesh).spec))

    def cut(x):
      # every num-th row, so that each device finds its share of each part among its own rows
      parts = x.reshape(x.shape[0] // num, num, *x.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(parts, rows)

    def part(carry, xs):
      i, rows_of_part = xs
      sums, extra = carry
      grads, metrics, extra = self._gradients(
        state.params, extra, rows_of_part, context, jax.random.fold_in(key, i)
      )
      return (jax.tree.map(jnp.add, sums, (grads, metrics)), extra), None

    first = jax.tree.map(lambda x: cut(x)[0], batch)
    zeros = jax.tree.map(
      lambda a: jnp.zeros(a.shape, a.dtype),
      jax.eval_shape(lambda: self._gradients(state.params, state.extra, first, context, key)[:2]),
    )
    (sums, extra), _ = jax.lax.scan(part, (zeros, state.extra), (jnp.arange(num), jax.tree.map(cut, batch)))
    grads, metrics = jax.tree.map(lambda total: total / num, sums)
    return grads, metrics, extra


@functools.lru_cache(maxsize=8)
def make_trainer(
  objective: Objective,
  optimizer: Optimizer,
  num_steps: int,
  ema_decay: float,
  mesh: Mesh,
  accumulate: int = 1,
) -> Trainer:
  """A Trainer; an equal request gets the same one, with what it has compiled."""
  return Trainer(objective, optimizer, num_steps, ema_decay, mesh, accumulate)
