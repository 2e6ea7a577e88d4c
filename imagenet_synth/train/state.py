"""The state that training carries from step to step, and the step.

Both are the same for diffusion stages and classifiers, which differ in the `Objective` alone.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagenet_synth.core.devices import batch_sharding, param_shardings, replicated
from imagenet_synth.core.gathering import gathered_on_use
from imagenet_synth.train.optim import Optimizer, learning_rate, make_optimizer

Batch = dict[str, jax.Array]
"""Arrays [B, ...] by name."""
StepFn = Callable[['TrainState', Batch, Any], tuple['TrainState', dict[str, jax.Array]]]
"""A function of (state, batch, context) that returns the next state and the step's metrics."""


class Objective(Protocol):
  """A network and what it is trained for. It is hashable: equal objectives share one compilation."""

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns fresh variables, with 'params' boxed in logical axis names."""
    ...

  def loss(
    self, variables: Mapping[str, Any], batch: Batch, context: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """Returns (scalar loss, (metrics, updated variables other than 'params')).

    Parameters that are cut over devices come in boxes, which flax's modules open where they read them; see
    `core.gathering`.
    """
    ...


@flax.struct.dataclass
class TrainState:
  """All that training carries from step to step."""

  # int32, how many steps are done
  step: jax.Array
  # int32, of all draws; carried, not compiled in, so that runs that differ in it alone share one compilation
  seed: jax.Array
  # the parameters, a tree of float32
  params: Any
  # their average, of the same shapes
  ema: Any
  # the variables other than parameters by collection: batch statistics, or none
  extra: Any
  # their average
  ema_extra: Any
  # the optimizer's own state
  opt_state: Any

  @property
  def sampling_variables(self) -> dict[str, Any]:
    """Returns the averaged variables, which sampling and evaluation use."""
    return {'params': self.ema, **self.ema_extra}


class Trainer:
  """The compiled pieces of one training run on one mesh.

  Args:
    objective: what is trained.
    optimizer: the update rule and its learning rate.
    num_steps: steps of the whole run, which the learning rate depends on.
    ema_decay: decay per step of the averaged variables.
    mesh: the devices.
    accumulate: parts of a batch that are computed one after the other, in less memory. Each part draws its
      own noise, so that the parts' numbers are not those of the whole batch, but of the same distribution.

  Attributes:
    mesh: the devices.
    abstract: the state's shapes and dtypes, a `TrainState` of `jax.ShapeDtypeStruct`.
    shardings: how each array of the state is laid out, a `TrainState` of `NamedSharding`.
    init: returns the state at step 0 of a run with fresh weights, from its seed.
    step: returns the next state and the metrics, from (state, batch, context); the state is used up.
  """

  mesh: Mesh
  abstract: Any
  shardings: Any
  init: Callable[[int], TrainState]
  step: StepFn

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
    self._learning_rate = learning_rate(optimizer, num_steps)
    self._boxed = jax.eval_shape(objective.init, jax.random.key(0))
    self.abstract = jax.eval_shape(self._fresh, 0)
    self.shardings = self._shardings(self._boxed)
    self.init = jax.jit(self._fresh, out_shardings=self.shardings)
    self._start_from = jax.jit(self._start, out_shardings=self.shardings)
    batch, whole = batch_sharding(mesh), replicated(mesh)
    self.step = jax.jit(
      self._step,
      donate_argnums=0,
      in_shardings=(self.shardings, batch, whole),
      out_shardings=(self.shardings, whole),
    )

  def start_from(self, variables: Any, seed: int) -> TrainState:
    """Returns the state at step 0 of a run that starts from trained variables."""
    shardings = {'params': self.shardings.params, **self.shardings.extra}
    return self._start_from(jax.device_put(variables, shardings), seed)

  def like(self) -> Any:
    """Returns the state's shapes and shardings, a `TrainState` that a checkpoint can be restored into."""
    return jax.tree.map(
      lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), self.abstract, self.shardings
    )

  def _fresh(self, seed: int) -> TrainState:
    return self._start(nn.unbox(self._objective.init(jax.random.key(seed))), seed)

  def _start(self, variables: Mapping[str, Any], seed: int) -> TrainState:
    params = variables['params']
    extra = {k: v for k, v in variables.items() if k != 'params'}
    # copies: the trees are donated together, so they must not share buffers
    ema, ema_extra = jax.tree.map(jnp.copy, (params, extra))
    return TrainState(jnp.int32(0), jnp.int32(seed), params, ema, extra, ema_extra, self._update.init(params))

  def _shardings(self, boxed: Mapping[str, Any]) -> TrainState:
    # not `NamedSharding`: in a tree of shardings each one has an array's place
    whole: Any = replicated(self.mesh)
    params = param_shardings(self.mesh, boxed['params'])

    def like_param(moment: jax.ShapeDtypeStruct, param: jax.ShapeDtypeStruct, sharding: NamedSharding) -> Any:
      # a moment is laid out as its parameter; Adafactor's factored ones are small and stay whole
      return sharding if moment.shape == param.shape else whole

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
    norms = {'grad_norm': grads, 'update_norm': updates, 'param_norm': params}
    metrics = {
      **metrics,
      **{name: optax.tree.norm(tree) for name, tree in norms.items()},
      'learning_rate': jnp.float32(self._learning_rate(state.step)),
    }
    return TrainState(step, state.seed, params, ema, extra, ema_extra, opt_state), metrics

  def _gradients(
    self, params: Any, extra: Any, batch: Batch, context: Any, key: jax.Array
  ) -> tuple[Any, dict[str, jax.Array], Any]:
    """Returns the gradients of a batch, its metrics, and the variables other than parameters after it."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
      params = gathered_on_use(params, self.shardings.params, self._boxed['params'])
      return self._objective.loss({'params': params, **extra}, batch, context, key)

    (_, (metrics, extra)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    grads = jax.lax.with_sharding_constraint(grads, self.shardings.params)
    return grads, metrics, extra

  def _accumulated(
    self, state: TrainState, batch: Batch, context: Any, key: jax.Array
  ) -> tuple[Any, dict[str, jax.Array], Any]:
    """Returns what `_gradients` does, as means over parts of the batch that are computed one by one."""
    num = self._accumulate
    rows = NamedSharding(self.mesh, PartitionSpec(None, *batch_sharding(self.mesh).spec))

    def cut(x: jax.Array) -> jax.Array:
      # every num-th row, so that each device finds its share of each part among its own rows
      parts = x.reshape(x.shape[0] // num, num, *x.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(parts, rows)

    def part(carry: tuple[Any, Any], xs: tuple[jax.Array, Batch]) -> tuple[tuple[Any, Any], None]:
      i, rows_of_part = xs
      sums, extra = carry
      # bound to the part: what is the same for all parts is taken out of the loop, and gathered weights were
      params, i = jax.lax.optimization_barrier((state.params, i))
      grads, metrics, extra = self._gradients(
        params, extra, rows_of_part, context, jax.random.fold_in(key, i)
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
  """Returns a `Trainer` of these arguments; equal ones give the same, with what it has compiled."""
  return Trainer(objective, optimizer, num_steps, ema_decay, mesh, accumulate)
