"""Bytes on disk, as formulas of what jobs write."""

import math

import flax.linen as nn
import jax

from imagenet_synth.cost.networks import Network
from imagenet_synth.train.optim import Optimizer, make_optimizer

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


def training_bytes(network: Network, optimizer: Optimizer, num_steps: int, snapshot_every: int) -> int:
  """Returns the bytes of a run's checkpoints: each has the whole state, and the averaged weights again."""
  state = jax.eval_shape(make_optimizer(optimizer, 1).init, nn.unbox(network.params))
  of_optimizer = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  weights = 4 * network.num_params
  num = math.ceil(num_steps / snapshot_every)
  return num * (3 * weights + of_optimizer)
