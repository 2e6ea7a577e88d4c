"""Training a classifier and asking it: what CAS, the extractors and the studies share."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints, load_ema
from imagenet_synth.core.mesh import check_batch_size, make_mesh
from imagenet_synth.core.parallel import map_rows, over_devices
from imagenet_synth.data.augment import random_crop, random_flip
from imagenet_synth.data.pipeline import Images, Joined, batches
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.train.loop import Writer, fit, restore_or_init
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a classifier is trained: the same for real, synthetic and joined data.

  num_steps: of batch_size images each, whatever the size of the training set. crop_padding: pixels by
  which an image is shifted at random. flip: mirror at random. label_smoothing: in [0, 1).
  """
  optimizer: Optimizer
  num_steps: int
  batch_size: int
  crop_padding: int = 0
  flip: bool = False
  label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True)
class ClassifierObjective:
  """Cross-entropy of a classifier: see `train.state.Objective`.

  Batches hold `image` uint8 [B, S, S, C] and `label` int32 [B].
  """
  model: nn.Module
  size: int
  channels: int
  label_smoothing: float = 0.0

  def init(self, key: jax.Array) -> dict[str, Any]:
    x = jnp.zeros((1, self.size, self.size, self.channels))
    return self.model.init(key, x, train=False)

  def loss(self, variables, batch, context, key):
    del context
    outputs, extra = self.model.apply(variables, images.to_float(batch['image']), train=True,
                                      mutable=['batch_stats'], rngs={'dropout': key})
    labels = jax.nn.one_hot(batch['label'], outputs.logits.shape[-1])
    labels = optax.smooth_labels(labels, self.label_smoothing)
    loss = optax.softmax_cross_entropy(outputs.logits, labels).mean()
    accuracy = jnp.mean(outputs.logits.argmax(-1) == batch['label'])
    return loss, ({'loss': loss, 'accuracy': accuracy}, dict(extra))


def train(model: nn.Module, recipe: Recipe, data: Images | Joined, seed: int, path: pathlib.Path,
          origin: dict[str, Any], make_writer: Callable[[pathlib.Path, int], Writer],
          what: str) -> Any:
  """Trains to the end, from the latest checkpoint in `path`, if any; -> the variables."""
  sample, _ = data.take(np.arange(1))
  objective = ClassifierObjective(model, *sample.shape[2:], recipe.label_smoothing)
  mesh = make_mesh()
  check_batch_size(mesh, recipe.batch_size)
  trainer = make_trainer(objective, recipe.optimizer, recipe.num_steps, 0.0, mesh)

  def augment(batch, draws):
    batch = random_crop(batch, recipe.crop_padding, draws)
    return random_flip(batch, draws) if recipe.flip else batch

  checkpoints = Checkpoints(path / 'checkpoints')
  state = restore_or_init(trainer, checkpoints, lambda: trainer.init(seed))
  writer = make_writer(path, int(state.step))
  state = fit(trainer, state,
              lambda start, stop, rows: batches(data, 'label', seed, recipe.batch_size, start, stop,
                                                rows, augment),
              {}, recipe.num_steps, batch_size=recipe.batch_size, checkpoints=checkpoints,
              checkpoint_every=max(recipe.num_steps // 4, 1000), origin=origin, writer=writer,
              what=what)
  writer.close()
  checkpoints.close()
  return state.sampling_variables


def load(model: nn.Module, size: int, channels: int, path: pathlib.Path, step: int) -> Any:
  """The variables that `train` saved under `path` at its last step."""
  like = jax.eval_shape(ClassifierObjective(model, size, channels).init, jax.random.key(0))
  return load_ema(path / 'checkpoints', step, nn.unbox(like))


@functools.lru_cache(maxsize=16)
def _forward(model: nn.Module) -> Callable[[Any, jax.Array], Outputs]:
  return over_devices(lambda variables, x: model.apply(variables, images.to_float(x), train=False))


def predict(model: nn.Module, variables: Any, inputs: np.ndarray, batch_size: int = 200) -> Outputs:
  """uint8 [N, S, S, C] -> logits float32 [N, K], features float32 [N, D], in evaluation mode."""
  return map_rows(_forward(model), variables, inputs, batch_size)
