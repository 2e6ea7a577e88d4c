"""Training of a classifier, and its predictions: what CAS, the extractors and the studies share."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints, latest_step, load_ema
from imagenet_synth.core.devices import make_mesh, map_rows, over_devices
from imagenet_synth.data.augment import Draws, center_part
from imagenet_synth.data.batches import Drawable, Images, batches
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.vit import resize_positions
from imagenet_synth.train.loop import Writer, fit, restore_or_init
from imagenet_synth.train.mixing import mix, own_share
from imagenet_synth.train.recipe import Recipe, augment
from imagenet_synth.train.state import Batch, TrainState, make_trainer

# images that `predict_labelled` has in memory at a time
_PREDICTED = 2000


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

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns fresh variables, with 'params' boxed in logical axis names."""
    x = jnp.zeros((1, self.size, self.size, self.channels))
    return self.model.init(key, x, train=False)

  def loss(
    self, variables: Mapping[str, Any], batch: Batch, context: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """Returns (scalar loss, ({'loss', 'accuracy'}, updated batch statistics)).

    Batches hold `image` uint8 [B, S, S, C] and `label` int32 [B]; the context is not used. The accuracy is
    that of the images' own labels, also where images are mixed.
    """
    del context
    x, share = images.to_float(batch['image']), None
    if self.mixup_alpha or self.cutmix_alpha:
      share = own_share(jax.random.fold_in(key, 1), self.size, self.mixup_alpha, self.cutmix_alpha)
      x = mix(x, share)
    outputs, extra = self.model.apply(
      variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )
    labels = jax.nn.one_hot(batch['label'], outputs.logits.shape[-1])
    labels = optax.smooth_labels(labels, self.label_smoothing)
    if share is not None:
      labels = mix(labels, share.mean())
    loss = optax.softmax_cross_entropy(outputs.logits, labels).mean()
    accuracy = jnp.mean(outputs.logits.argmax(-1) == batch['label'])
    return loss, ({'loss': loss, 'accuracy': accuracy}, dict(extra))


def train(
  model: nn.Module,
  recipe: Recipe,
  data: Drawable,
  size: int,
  seed: int,
  path: pathlib.Path,
  origin: dict[str, Any],
  make_writer: Callable[[pathlib.Path, int], Writer],
  what: str,
  start: Any = None,
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
    start: variables to begin with, also of another image size; random ones if not given.

  Raises:
    InputError: the loss is not finite, or the checkpoint does not fit the network.
    Stopped: SIGTERM came; the step that was reached is saved.
  """
  sample, _ = data.take(np.arange(1))
  objective = ClassifierObjective(
    model, size, sample.shape[-1], recipe.label_smoothing, recipe.mixup_alpha, recipe.cutmix_alpha
  )
  mesh = make_mesh()
  num_steps = recipe.steps(len(data))
  trainer = make_trainer(objective, recipe.optimizer, num_steps, recipe.ema_decay, mesh)
  checkpoints = Checkpoints(path / 'checkpoints')

  def fresh() -> TrainState:
    if start is None:
      return trainer.init(seed)
    return trainer.start_from(_of_size(start, objective), seed)

  def augmented(pictures: np.ndarray, draws: Draws) -> np.ndarray:
    return augment(pictures, draws, recipe, size)

  state = restore_or_init(trainer, checkpoints, fresh)
  writer = make_writer(path, int(state.step))
  state = fit(
    trainer,
    state,
    lambda first, stop, rows: batches(data, 'label', seed, recipe.batch_size, first, stop, rows, augmented),
    {},
    num_steps,
    batch_size=recipe.batch_size,
    checkpoints=checkpoints,
    checkpoint_every=max(num_steps // 4, 1000),
    origin=origin,
    writer=writer,
    what=what,
  )
  writer.close()
  checkpoints.close()
  return state.sampling_variables


def _of_size(variables: Any, objective: ClassifierObjective) -> Any:
  """Returns the variables for images of the objective's size: a transformer's positions are resized."""
  params = variables['params']
  if 'positions' not in params:
    return variables
  wanted = nn.unbox(jax.eval_shape(objective.init, jax.random.key(0)))['params']['positions']
  positions = resize_positions(params['positions'], wanted.shape[1] - 1)
  return {**variables, 'params': {**params, 'positions': positions}}


def load(model: nn.Module, size: int, channels: int, path: pathlib.Path) -> Any:
  """Returns the variables of the latest checkpoint that `train` has saved in `path`.

  Raises:
    InputError: there is no checkpoint, or it does not fit the network.
  """
  like = jax.eval_shape(ClassifierObjective(model, size, channels).init, jax.random.key(0))
  checkpoints = path / 'checkpoints'
  return load_ema(checkpoints, latest_step(checkpoints), nn.unbox(like))


@functools.lru_cache(maxsize=16)
def _forward(model: nn.Module) -> Callable[[Any, jax.Array], Outputs]:
  """Returns the program of `predict`; an equal model gets the same one, which is compiled once."""
  return over_devices(lambda variables, x: model.apply(variables, images.to_float(x), train=False))


def predict(model: nn.Module, variables: Any, inputs: np.ndarray, batch_size: int = 200) -> Outputs:
  """Returns what a classifier says of images uint8 [N, S, S, C], in evaluation mode: see `Outputs`.

  Args:
    model: the network.
    variables: its weights and batch statistics.
    inputs: the images.
    batch_size: images at a time, over all devices of this host.
  """
  return map_rows(_forward(model), variables, inputs, batch_size)


def predict_labelled(
  model: nn.Module, variables: Any, data: Images, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns logits float32 [N, K] of the centres [size, size] of all images, and their labels int32 [N]."""
  logits, labels = [], []
  for start in range(0, len(data), _PREDICTED):
    pictures, numbers = data.take(np.arange(start, min(start + _PREDICTED, len(data))))
    logits.append(predict(model, variables, center_part(pictures, size)).logits)
    labels.append(numbers)
  return np.concatenate(logits), np.concatenate(labels)
