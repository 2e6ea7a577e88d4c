"""Training of a classifier, and its predictions: what CAS, the extractors and the studies share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints, latest_step, load_ema
from imagenet_synth.core.devices import (
  local_replicated,
  make_mesh,
  map_rows,
  over_devices,
  own_replicas,
  replicated,
)
from imagenet_synth.core.processes import gather_parts, own_part
from imagenet_synth.data.augment import center_part
from imagenet_synth.data.batches import Ahead, Drawable, Images, batches
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.vit import resize_positions
from imagenet_synth.train.loop import Writer, fit
from imagenet_synth.train.mixing import mix, own_share
from imagenet_synth.train.recipe import Recipe
from imagenet_synth.train.state import Batch, TrainState, make_trainer

# images that `predict_labelled` predicts at a time, while as many are decoded
_PREDICTED = 1024


@dataclasses.dataclass(frozen=True)
class ClassifierObjective:
  """The cross-entropy of a classifier: an `Objective` of `train.state`."""

  # the network: `apply(variables, images [B, S, S, C], train=...)` returns `Outputs`
  model: nn.Module
  # S, height and width of the images
  size: int
  # C, 1 (grey) or 3 (RGB)
  channels: int
  # share of a label that is spread over all classes
  label_smoothing: float = 0.0
  # of the Beta distribution of Mixup, see `train.mixing`; 0 for none
  mixup_alpha: float = 0.0
  # of the Beta distribution of CutMix, see `train.mixing`; 0 for none
  cutmix_alpha: float = 0.0
  # groups of images that are normalised by batch statistics of their own: how many of each `sum(groups)` rows
  # of a batch are in each, those of the first first; a single one of all rows if empty
  groups: tuple[int, ...] = ()

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns fresh variables, with 'params' boxed in logical axis names."""
    x = jnp.zeros((1, self.size, self.size, self.channels))
    return self.model.init(key, x, train=False)

  def loss(
    self, variables: Mapping[str, Any], batch: Batch, context: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """Returns (scalar loss, ({'loss', 'accuracy'}, updated batch statistics)).

    Batches hold `image` uint8 [B, S, S, C], perhaps `mirrored` (see `images.of_batch`), `label` int32 [B]
    and, where images don't count the same, `weight` float32 [B]; the context is not used. The loss is the
    weighted mean over images. Of a part of a larger batch, `mean_weight` float32 [B] is the mean weight of
    that, so that parts add up. A mixed image has a mixture of both weights, as it has of both labels; images
    are mixed within their group. The accuracy is that of the images' own labels, also where images are mixed,
    and heeds no weights. The batch statistics are updated by the first group alone.
    """
    del context
    share = None
    if self.mixup_alpha or self.cutmix_alpha:
      share = own_share(jax.random.fold_in(key, 1), self.size, self.mixup_alpha, self.cutmix_alpha)
    sums, extra = self._sums(variables, _group(batch, self.groups, 0), share, key)
    # the others' statistics are theirs for this step, and not kept
    for i in range(1, len(self.groups)):
      more, _ = self._sums(variables, _group(batch, self.groups, i), share, jax.random.fold_in(key, 1 + i))
      sums = jax.tree.map(jnp.add, sums, more)
    total = sums['weight'] if 'mean_weight' not in batch else batch['mean_weight'].sum()
    loss, accuracy = sums['loss'] / total, sums['right'] / len(batch['label'])
    return loss, ({'loss': loss, 'accuracy': accuracy}, extra)

  def _sums(
    self, variables: Mapping[str, Any], batch: Batch, share: jax.Array | None, key: jax.Array
  ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Returns sums over images that are normalised together, and the batch statistics that they lead to.

    The sums are of the weighted losses, the weights, and the images whose own label is found.
    """
    x, weights = images.of_batch(batch), batch.get('weight')
    if share is not None:
      x = mix(x, share)
    outputs, extra = self.model.apply(
      variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )
    labels = jax.nn.one_hot(batch['label'], outputs.logits.shape[-1])
    labels = optax.smooth_labels(labels, self.label_smoothing)
    if share is not None:
      labels = mix(labels, share.mean())
      weights = None if weights is None else mix(weights, share.mean())
    losses = optax.softmax_cross_entropy(outputs.logits, labels)
    sums = {
      'loss': jnp.sum(losses if weights is None else weights * losses),
      'weight': jnp.float32(len(losses)) if weights is None else weights.sum(),
      'right': jnp.sum(outputs.logits.argmax(-1) == batch['label']),
    }
    return sums, dict(extra)


def _group(batch: Batch, groups: Sequence[int], number: int) -> Batch:
  """Returns the rows of a batch that are in a group: see `ClassifierObjective.groups`.

  Where each device has a multiple of `sum(groups)` rows, no row leaves its device.
  """
  if not groups:
    return batch
  start, count, period = sum(groups[:number]), groups[number], sum(groups)

  def cut(x: jax.Array) -> jax.Array:
    periods = x.reshape(-1, period, *x.shape[1:])
    return periods[:, start : start + count].reshape(-1, *x.shape[1:])

  return jax.tree.map(cut, batch)


def has_batch_statistics(model: nn.Module, size: int) -> bool:
  """Returns whether a classifier of images of a size normalises them by statistics of their batch."""
  # a network that leaves the number of classes to the data cannot be made without one
  sized = model if getattr(model, 'num_classes', 1) else model.clone(num_classes=1)
  return 'batch_stats' in jax.eval_shape(ClassifierObjective(sized, size, 3).init, jax.random.key(0))


class HeldOut(NamedTuple):
  """Images that a classifier is tried on while it is trained."""

  # the images, with their labels
  images: Images
  # steps between tries
  every: int


def train(
  model: nn.Module,
  recipe: Recipe,
  data: Drawable,
  size: int,
  seed: int,
  path: epath.Path,
  origin: dict[str, Any],
  make_writer: Callable[[epath.Path, int], Writer],
  what: str,
  start: Any = None,
  groups: tuple[int, ...] = (),
  held_out: HeldOut | None = None,
) -> Any:
  """Trains a classifier to the end, or on from the latest checkpoint, and returns its (averaged) variables.

  Args:
    model: the network.
    recipe: how it is trained.
    data: labelled images uint8 [S, S, C], S >= size.
    size: height and width of what the network sees.
    seed: of weights, batches and augmentation.
    path: the folder of the run; its checkpoints are in `path`/checkpoints.
    origin: where the weights come from, kept with each checkpoint.
    make_writer: makes what the metrics are written with, from `path` and the step that training goes on from.
    what: names the run in the progress bar and in errors.
    start: variables to begin with, also of another image size, or without the last layer, which is random
      then; all are if not given.
    groups: of images that have batch statistics of their own: see `ClassifierObjective`; not with parts of
      batches.
    held_out: images whose accuracy goes to the writer on the way.

  Raises:
    InputError: the loss is not finite, or the checkpoint does not fit the network.
    Stopped: a process was told to stop; the step that was reached is saved.
  """
  data.load()
  sample, _ = data.take(np.arange(1))
  objective = ClassifierObjective(
    model, size, sample.shape[-1], recipe.label_smoothing, recipe.mixup_alpha, recipe.cutmix_alpha, groups
  )
  mesh = make_mesh(recipe.fsdp, recipe.tensor, recipe.devices)
  num_steps = recipe.steps(len(data), data.first_pass)
  trainer = make_trainer(objective, recipe.optimizer, num_steps, recipe.ema_decay, mesh, recipe.accumulate)

  def fresh() -> TrainState:
    if start is None:
      return trainer.init(seed)
    return trainer.start_from(_fitted(start, objective, seed), seed)

  augment = recipe.augmentation(size)

  def batches_of(first: int, stop: int, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches(
      data,
      'label',
      seed,
      recipe.batch_size,
      first,
      stop,
      rows,
      augment,
      recipe.repeats,
      augment.crop,
      recipe.flip,
    ):
      yield _with_mean_weight(batch) if recipe.accumulate > 1 else batch

  def after_step(step: int, state: TrainState, writer: Writer) -> None:
    if held_out is not None and step % held_out.every == 0:
      variables = _for_predictions(state.sampling_variables, mesh)
      logits, labels = predict_labelled(model, variables, held_out.images, size)
      writer.write_scalars(step, {'held_out_accuracy': np.mean(logits.argmax(axis=1) == labels)})

  variables = fit(
    trainer,
    fresh,
    batches_of,
    {},
    num_steps,
    batch_size=recipe.batch_size,
    checkpoints=Checkpoints(path),
    # nothing is chosen among them
    checkpoint_every=num_steps,
    origin=origin,
    make_writer=functools.partial(make_writer, path),
    what=what,
    after_step=after_step,
  )
  return _for_predictions(variables, mesh)


def _for_predictions(variables: Any, mesh: Mesh) -> Any:
  """Returns variables, laid out over the mesh of a run, whole on every device of this host."""
  return own_replicas(jax.device_put(variables, replicated(mesh)))


def _with_mean_weight(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns a whole batch with what `ClassifierObjective.loss` needs of it where its rows have weights."""
  if 'weight' not in batch:
    return batch
  return batch | {'mean_weight': np.full_like(batch['weight'], batch['weight'].mean())}


def _fitted(variables: Any, objective: ClassifierObjective, seed: int) -> Any:
  """Returns the variables for the objective's images and classes.

  A transformer's positions are resized. A last layer that is missing is that of the seed's random weights.
  """
  params = dict(variables['params'])
  if 'positions' in params:
    wanted = nn.unbox(jax.eval_shape(objective.init, jax.random.key(0)))['params']['positions']
    params['positions'] = resize_positions(params['positions'], math.isqrt(wanted.shape[1]) ** 2)
  if 'head' not in params:
    params['head'] = jax.jit(lambda key: nn.unbox(objective.init(key))['params']['head'])(
      jax.random.key(seed)
    )
  return {**variables, 'params': params}


def load(model: nn.Module, size: int, channels: int, path: epath.Path) -> Any:
  """Returns the variables of the latest checkpoint that `train` has saved in `path`, whole on each device.

  Raises:
    InputError: there is no checkpoint, or it does not fit the network.
  """
  like = jax.eval_shape(ClassifierObjective(model, size, channels).init, jax.random.key(0))
  checkpoints = path / 'checkpoints'
  variables = load_ema(checkpoints, latest_step(checkpoints), nn.unbox(like))
  return jax.device_put(variables, local_replicated())


@functools.lru_cache(maxsize=16)
def _forward(model: nn.Module) -> Callable[[Any, jax.Array], Outputs]:
  """Returns the program of `predict`; an equal model gets the same one, which is compiled once."""
  return over_devices(lambda variables, x: model.apply(variables, images.to_float(x), train=False))


def predict(model: nn.Module, variables: Any, inputs: np.ndarray, batch_size: int = 128) -> Outputs:
  """Returns what a classifier says of images uint8 [N, S, S, C], in evaluation mode: see `Outputs`.

  Args:
    model: the network.
    variables: its weights and batch statistics.
    inputs: the images.
    batch_size: images that a device has at a time.
  """
  return map_rows(_forward(model), variables, inputs, batch_size)


def predict_labelled(
  model: nn.Module, variables: Any, data: Images, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns logits float32 [N, K] of the centres [size, size] of all images, and their labels int32 [N].

  Processes that have joined each other predict a part each, and all get all; every one must call it.
  """
  mine = own_part(len(data))
  # one image at least: what has no rows has no shape either
  rows = np.arange(mine.start, max(mine.stop, mine.start + 1))
  taken = (data.take(rows[start : start + _PREDICTED]) for start in range(0, len(rows), _PREDICTED))
  logits, labels = [], []
  for pictures, numbers in Ahead(taken):
    logits.append(predict(model, variables, center_part(pictures, size)).logits)
    labels.append(numbers)
  parts = (np.concatenate(rows)[: len(mine)] for rows in (logits, labels))
  all_logits, all_labels = (gather_parts(rows, len(data)) for rows in parts)
  return all_logits, all_labels
