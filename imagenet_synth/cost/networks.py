"""What networks cost for one image, in training and in evaluation: parameters, and profiles of programs.

All of it is of shapes, and computed once for each network.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.program import Profile, profile
from imagenet_synth.models.inception import InceptionV3
from imagenet_synth.models.t5 import T5Config, T5Encoder
from imagenet_synth.train.classifier import ClassifierObjective
from imagenet_synth.train.state import Objective
from imagenet_synth.weights.public import PublicNetwork

# height and width that Inception-v3 sees
_INCEPTION_SIZE = 299


class Network(NamedTuple):
  """A network, and a program that computes with it."""

  # its parameters: a tree of boxed shapes
  params: Any
  # the program
  profile: Profile

  @property
  def num_params(self) -> int:
    """Returns how many parameters it has."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nn.unbox(self.params)))


@functools.cache
def stage_training(objective: DiffusionObjective, text_length: int) -> Network:
  """Returns the network of a stage, and the gradients of its loss."""
  stage = objective.stage
  size = objective.crop or stage.size
  batch = {
    'image': _shape(1, size, size, stage.channels, dtype=jnp.uint8),
    'text': _shape(1, text_length, objective.text_size),
  }
  return _training(objective, batch, {'null': _shape(text_length, objective.text_size)})


@functools.cache
def stage_evaluation(stage: Stage, text_shape: tuple[int, int]) -> Network:
  """Returns the network of a stage, and one evaluation of it, as sampling does it."""
  boxed = jax.eval_shape(DiffusionObjective(stage, text_shape[1]).init, jax.random.key(0))
  image, level = _shape(1, stage.size, stage.size, stage.channels), _shape(1)
  low_res = (None, None) if stage.low_res_size is None else (image, level)
  inputs = (image, level, _shape(1, *text_shape), *low_res)
  return _evaluation(lambda variables, *given: stage.predict(variables, *given), boxed, inputs)


@functools.cache
def classifier_training(objective: ClassifierObjective) -> Network:
  """Returns a classifier, and the gradients of its loss."""
  size = objective.size
  image = _shape(1, size, size, objective.channels, dtype=jnp.uint8)
  return _training(objective, {'image': image, 'label': _shape(1, dtype='int32')}, {})


@functools.cache
def classifier_evaluation(model: nn.Module, size: int, channels: int) -> Network:
  """Returns a classifier, and one evaluation of it."""
  boxed = jax.eval_shape(ClassifierObjective(model, size, channels).init, jax.random.key(0))
  forward = lambda variables, x: model.apply(variables, x, train=False)
  return _evaluation(forward, boxed, (_shape(1, size, size, channels),))


@functools.cache
def inception_evaluation() -> Network:
  """Returns FID's Inception-v3, and one evaluation of it."""
  model, image = InceptionV3(), _shape(1, _INCEPTION_SIZE, _INCEPTION_SIZE, 3)
  boxed = jax.eval_shape(model.init, jax.random.key(0), image)
  return _evaluation(model.apply, boxed, (image,))


@functools.cache
def public_evaluation(network: PublicNetwork) -> Network:
  """Returns another public network, and one evaluation of it."""
  variables, image = network.like, _shape(1, network.size, network.size, 3, dtype=jnp.uint8)
  return _evaluation(network.outputs, variables, (image,))


@functools.cache
def encoder_evaluation(config: T5Config, length: int, dtype: str) -> Network:
  """Returns a text encoder, and its evaluation of one prompt."""
  encoder = T5Encoder(config, jnp.dtype(dtype))
  inputs = (_shape(1, length, dtype='int32'), _shape(1, length, dtype='bool'))
  boxed = jax.eval_shape(encoder.init, jax.random.key(0), *inputs)
  return _evaluation(encoder.apply, boxed, inputs)


def _training(objective: Objective, batch: Any, context: Any) -> Network:
  boxed = jax.eval_shape(objective.init, jax.random.key(0))
  variables = dict(nn.unbox(boxed))
  params = variables.pop('params')

  def step(params: Any, extra: Any, batch: Any, context: Any, key: jax.Array) -> Any:
    loss = lambda params: objective.loss({'params': params, **extra}, batch, context, key)
    (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return gradients, value, aux

  key = jax.eval_shape(lambda: jax.random.key(0))
  costs = profile(step, params, (variables, batch, context, key), has_gradients=True)
  return Network(boxed['params'], costs)


def _evaluation(forward: Any, boxed: Any, inputs: Any) -> Network:
  return Network(boxed['params'], profile(forward, nn.unbox(boxed), inputs))


def _shape(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
