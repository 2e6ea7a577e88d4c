"""Bytes on disk, as formulas of what jobs write."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.cost.networks import Network
from imagenet_synth.train.loop import Disk, disk_bytes
from imagenet_synth.train.optim import Optimizer, make_optimizer
from imagenet_synth.train.state import TrainState

# bytes of a file for each value of an image, for small images and for large ones, and the size from which on
# they are large. Measured of photographs, JPEG at quality 95: see docs/cost.md
_BYTES_PER_VALUE = {'png': (0.85, 0.6), 'jpeg': (0.28, 0.17)}
_LARGE = 128
# bytes of a record beside the image: names, prompt, where it comes from
_RECORD = 600


def image_bytes(size: int, channels: int, image_format: str = 'png') -> float:
  """Returns the bytes of a photograph in a shard, about: files of drawings and digits are smaller."""
  small, large = _BYTES_PER_VALUE[image_format]
  return _RECORD + (large if size > _LARGE else small) * channels * size**2


def training_bytes(
  network: Network, optimizer: Optimizer, num_steps: int, snapshot_every: int, snapshot_dtype: str = 'float32'
) -> Disk:
  """Returns the bytes of a run's checkpoints."""
  return disk_bytes(_state(network, optimizer), num_steps, snapshot_every, snapshot_dtype)


def state_bytes(network: Network, optimizer: Optimizer) -> int:
  """Returns the bytes of a training state: weights, their average, and what the optimizer keeps."""
  return sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(_state(network, optimizer))
  )


def _state(network: Network, optimizer: Optimizer) -> TrainState:
  """Returns the shapes of a training state, but for batch statistics, which are small."""
  params, number = nn.unbox(network.params), jax.ShapeDtypeStruct((), jnp.int32)
  of_optimizer = jax.eval_shape(make_optimizer(optimizer, 1).init, params)
  # its fields are said to be arrays: these are their shapes
  fields: Any = (number, number, params, params, {}, {}, of_optimizer)
  return TrainState(*fields)
