"""Training a classifier and asking it: what CAS, the extractors and the studies share."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints, latest_step, load_ema
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.mesh import check_batch_size, make_mesh
from imagenet_synth.core.parallel import map_rows, over_devices
from imagenet_synth.data.augment import (
  Draws,
  center_part,
  random_crop,
  random_erasing,
  random_flip,
  random_part,
  random_resized_crop,
)
from imagenet_synth.data.pipeline import Images, Joined, batches
from imagenet_synth.data.randaugment import RandAugment, randaugment
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.vit import resize_positions
from imagenet_synth.train.loop import Writer, fit, restore_or_init
from imagenet_synth.train.mixing import mix, own_share
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

# images in memory at a time
_PREDICTED = 2000


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a classifier is trained: the same for real, synthetic and joined data.

  num_steps: of batch_size images each, whatever the size of the training set; or else epochs: over
  the training set. crop_padding: pixels by which an image is shifted at random.
  random_resized_crop: a random part of an image, brought to the network's size. flip: mirror at random.
  erasing: the probability of noise in place of a part. mixup_alpha, cutmix_alpha: two images at once, see
  `train.mixing`; 0 for none. label_smoothing: in [0, 1). ema_decay: of the average of weights and
  batch statistics that is evaluated; 0 for the latest.

  Raises:
    InputError: both or neither of num_steps and epochs are given.
  """

  optimizer: Optimizer
  batch_size: int
  num_steps: int | None = None
  epochs: float | None = None
  crop_padding: int = 0
  random_resized_crop: bool = False
  flip: bool = False
  randaugment: RandAugment | None = None
  erasing: float = 0.0
  mixup_alpha: float = 0.0
  cutmix_alpha: float = 0.0
  label_smoothing: float = 0.0
  ema_decay: float = 0.0

  def __post_init__(self):
    if (self.num_steps is None) == (self.epochs is None):
      raise InputError(
        f'recipe: num_steps is {self.num_steps} and epochs is {self.epochs}; give one of the two'
      )

  def steps(self, num_examples: int) -> int:
    """Of a run on a training set; the last epoch is filled up to a whole batch."""
    if self.num_steps is not None:
      return self.num_steps
    return math.ceil(self.epochs * num_examples / self.batch_size)


def augment(batch: np.ndarray, draws: Draws, recipe: Recipe, size: int) -> np.ndarray:
  """What a recipe does to images uint8 [B, S, S, C] before they are mixed -> [B, size, size, C]."""
  batch = random_crop(batch, recipe.crop_padding, draws)
  if recipe.random_resized_crop:
    batch = random_resized_crop(batch, draws, size)
  elif batch.shape[1] > size:
    batch = random_part(batch, draws, size)
  if recipe.flip:
    batch = random_flip(batch, draws)
  if recipe.randaugment is not None:
    batch = randaugment(batch, recipe.randaugment, draws)
  return random_erasing(batch, recipe.erasing, draws)


@dataclasses.dataclass(frozen=True)
class ClassifierObjective:
  """Cross-entropy of a classifier: see `train.state.Objective`.

  Batches hold `image` uint8 [B, S, S, C] and `label` int32 [B]. The accuracy is that of the images'
  own labels, also where images are mixed.
  """

  model: nn.Module
  size: int
  channels: int
  label_smoothing: float = 0.0
  mixup_alpha: float = 0.0
  cutmix_alpha: float = 0.0

  def init(self, key: jax.Array) -> dict[str, Any]:
    x = jnp.zeros((1, self.size, self.size, self.channels))
    return self.model.init(key, x, train=False)

  def loss(self, variables, batch, context, key):
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
  data: Images | Joined,
  size: int,
  seed: int,
  path: pathlib.Path,
  origin: dict[str, Any],
  make_writer: Callable[[pathlib.Path, int], Writer],
  what: str,
  start: Any = None,
) -> Any:
  """Trains to the end, from the latest checkpoint in `path`, if any; -> the variables.

  size: of what the network sees; the images of `data` may be larger. start: variables to begin with, also
  of another size; random ones if not given.
  """
  sample, _ = data.take(np.arange(1))
  objective = ClassifierObjective(
    model, size, sample.shape[-1], recipe.label_smoothing, recipe.mixup_alpha, recipe.cutmix_alpha
  )
  mesh = make_mesh()
  check_batch_size(mesh, recipe.batch_size)
  num_steps = recipe.steps(len(data))
  trainer = make_trainer(objective, recipe.optimizer, num_steps, recipe.ema_decay, mesh)
  checkpoints = Checkpoints(path / 'checkpoints')
  fresh = lambda: (
    trainer.init(seed) if start is None else trainer.start_from(_of_size(start, objective), seed)
  )
  state = restore_or_init(trainer, checkpoints, fresh)
  writer = make_writer(path, int(state.step))
  state = fit(
    trainer,
    state,
    lambda start, stop, rows: batches(
      data,
      'label',
      seed,
      recipe.batch_size,
      start,
      stop,
      rows,
      functools.partial(augment, recipe=recipe, size=size),
    ),
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
  """The variables for images of the objective's size: a transformer's positions are resized."""
  params = variables['params']
  if 'positions' not in params:
    return variables
  wanted = nn.unbox(jax.eval_shape(objective.init, jax.random.key(0)))['params']['positions']
  positions = resize_positions(params['positions'], wanted.shape[1] - 1)
  return {**variables, 'params': {**params, 'positions': positions}}


def load(model: nn.Module, size: int, channels: int, path: pathlib.Path) -> Any:
  """The variables that `train` saved under `path` last."""
  like = jax.eval_shape(ClassifierObjective(model, size, channels).init, jax.random.key(0))
  checkpoints = path / 'checkpoints'
  return load_ema(checkpoints, latest_step(checkpoints), nn.unbox(like))


@functools.lru_cache(maxsize=16)
def _forward(model: nn.Module) -> Callable[[Any, jax.Array], Outputs]:
  return over_devices(lambda variables, x: model.apply(variables, images.to_float(x), train=False))


def predict(model: nn.Module, variables: Any, inputs: np.ndarray, batch_size: int = 200) -> Outputs:
  """uint8 [N, S, S, C] -> logits float32 [N, K], features float32 [N, D], in evaluation mode."""
  return map_rows(_forward(model), variables, inputs, batch_size)


def predict_labelled(
  model: nn.Module, variables: Any, data: Images, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Logits float32 [N, K] of the centres [size, size] of all images, and their labels int32 [N]."""
  logits, labels = [], []
  for start in range(0, len(data), _PREDICTED):
    pictures, numbers = data.take(np.arange(start, min(start + _PREDICTED, len(data))))
    logits.append(predict(model, variables, center_part(pictures, size)).logits)
    labels.append(numbers)
  return np.concatenate(logits), np.concatenate(labels)
