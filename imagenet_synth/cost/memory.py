"""Memory of a device, as formulas of what a program keeps: for training, and for evaluation of networks.

Of what the program computes, `core.program` tells. The rest is known from shapes:

training    weights, average, optimizer state: float32, cut as the mesh cuts them
            gradients: as the weights; with accumulation, a second tree for their sum
            gathered: what layers read of weights that are cut or cast, in the dtype that they compute in.
              With `remat` that of one block, as it is let go and made again; else of all
            batch: the images of a device as uint8, and their text
evaluation  weights of all networks, in the dtype that they compute in; of a text encoder, cut
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh

from imagenet_synth.core.devices import AXES, param_shardings
from imagenet_synth.cost.networks import Network
from imagenet_synth.train.optim import Optimizer, make_optimizer

# what compilers keep beside the arrays of a program: copies in other layouts, and gaps between arrays. Of
# networks like ours, XLA for CPUs has kept 0.94 to 1.22 of what is counted: see docs/cost.md
_BESIDE = 1.1
# float32 images that a sampler has beside those in the network: x_t, noise, estimates with and without text
_SAMPLER_IMAGES = 6


class Division(NamedTuple):
  """How a batch and the weights are divided among devices."""

  # all of them
  num_devices: int
  # that share the weights
  fsdp: int = 1
  # that share each matrix product
  tensor: int = 1
  # parts of a batch that are computed one after the other
  accumulate: int = 1

  def rows(self, batch_size: int) -> int:
    """Returns the images of a batch that a device computes at a time."""
    return max(math.ceil(batch_size / (self.num_devices // self.tensor * self.accumulate)), 1)


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
  """What training of a network keeps on each device."""

  # what is trained
  network: Network
  # the update rule
  optimizer: Optimizer
  # images of a step, over all devices
  batch_size: int
  # bytes of an image of the batch and its text
  input_bytes: int
  # bytes of a number that layers compute with
  itemsize: int
  # whether blocks are computed again for the gradient
  remat: bool

  def peak(self, division: Division) -> int:
    """Returns the most bytes that a device has at a time."""
    return sum(self.parts(division).values())

  def parts(self, division: Division) -> dict[str, int]:
    """Returns what the bytes of a device are of."""
    params = nn.unbox(self.network.params)
    whole = _bytes(params)
    mesh = AbstractMesh((division.num_devices // (division.fsdp * division.tensor), *division[1:3]), AXES)
    shardings = param_shardings(mesh, self.network.params)
    own = sum(jax.tree.leaves(jax.tree.map(_shard_bytes, params, shardings)))
    rows = division.rows(self.batch_size)
    computed = self.network.profile
    of_gradients = own / whole
    return {
      'weights': own,
      'average': own,
      'optimizer': self._optimizer_bytes(params, shardings),
      'sum of gradients': own if division.accumulate > 1 else 0,
      'gathered': self._gathered(params, division),
      'activations and gradients': int(_BESIDE * computed.peak(rows, of_gradients)),
      'batch': rows * division.accumulate * self.input_bytes,
    }

  def _optimizer_bytes(self, params: Any, shardings: Any) -> int:
    """Returns the bytes of moments and the like; those of the shape of a parameter are cut as it is."""
    update = make_optimizer(self.optimizer, 1)
    state = jax.eval_shape(update.init, params)
    own = optax.tree.map_params(
      update,
      lambda moment, param, sharding: (
        _shard_bytes(moment, sharding) if moment.shape == param.shape else _bytes(moment)
      ),
      state,
      params,
      shardings,
      transform_non_params=_bytes,
    )
    return sum(jax.tree.leaves(own))

  def _gathered(self, params: Any, division: Division) -> int:
    """Returns the bytes of weights as layers compute with them, where these are not those that are kept."""
    if division.fsdp == 1 and self.itemsize == 4:
      return 0
    blocks = [self.itemsize * _num(block) // division.tensor for block in params.values()]
    return max(blocks) if self.remat else sum(blocks)


@dataclasses.dataclass(frozen=True)
class EvaluationMemory:
  """What evaluation of networks one after the other keeps on each device."""

  # the networks, with the bytes of a number that each computes with, and the images of its batches
  networks: Sequence[tuple[Network, int, int]]
  # bytes of an image that a sampler draws, for each network; 0 where there is none
  image_bytes: Sequence[int]
  # whether only the weights of one network are there at a time
  one_by_one: bool = False

  def peak(self, division: Division) -> int:
    """Returns the most bytes that a device has at a time; `accumulate` divides the size of batches."""
    of_networks = [itemsize * network.num_params for network, itemsize, _ in self.networks]
    weights = max(of_networks) if self.one_by_one else sum(of_networks)
    computed = [
      _BESIDE * network.profile.peak(rows) + _SAMPLER_IMAGES * rows * size
      for (network, _, batch_size), size in zip(self.networks, self.image_bytes, strict=True)
      for rows in [division.rows(batch_size)]
    ]
    return int(weights / (division.fsdp * division.tensor) + max(computed))


def itemsize(network: nn.Module) -> int:
  """Returns the bytes of a number that a network computes with."""
  return jnp.dtype(getattr(network, 'dtype', 'float32')).itemsize


def _num(tree: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shard_bytes(leaf: Any, sharding: Any) -> int:
  return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
