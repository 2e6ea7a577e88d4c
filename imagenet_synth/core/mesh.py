"""The device mesh and how arrays are laid over it.

Networks name the axes of their parameters by meaning; one table says which mesh axis each name is
cut along, as in T5X (Roberts et al., 2022). Batches are cut along `data` and `fsdp` together.
"""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imagenet_synth.core.errors import InputError

AXES = ('data', 'fsdp', 'tensor')

RULES = {
  'embed': 'fsdp',
  'mlp': 'tensor',
  'heads': 'tensor',
  'vocab': 'tensor',
  'conv_in': 'fsdp',
  'conv_out': 'tensor',
}
"""Logical axis name -> mesh axis. A name that is not listed is not cut."""


def make_mesh(fsdp: int = 1, tensor: int = 1) -> Mesh:
  """All devices of all processes as a mesh (data, fsdp, tensor); `data` takes what is left."""
  num_devices = jax.device_count()
  if num_devices % (fsdp * tensor):
    raise InputError(f'mesh: {num_devices} devices cannot be cut into fsdp={fsdp} x tensor={tensor}')
  shape = (num_devices // (fsdp * tensor), fsdp, tensor)
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def param_shardings(mesh: Mesh, boxed: Any) -> Any:
  """Shardings for a tree of boxed parameters (arrays or shapes) with logical axis names.

  An axis whose length its mesh axis does not divide is left whole: small networks have such axes.
  """

  def sharding(leaf):
    names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else ()
    shape = nn.unbox(leaf).shape
    axes = [RULES.get(name) if name else None for name in names] or [None] * len(shape)
    fits = [a if a and size % mesh.shape[a] == 0 else None for a, size in zip(axes, shape)]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree.map(sharding, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def gathered(shardings: Any) -> Any:
  """The same shardings with nothing cut along `fsdp`: parameters as a step computes with them."""

  def whole(sharding):
    return NamedSharding(
      sharding.mesh, PartitionSpec(*[None if axis == 'fsdp' else axis for axis in sharding.spec])
    )

  return jax.tree.map(whole, shardings)


def check_batch_size(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
  num_parts = mesh.shape['data'] * mesh.shape['fsdp'] * accumulate
  if batch_size % num_parts:
    times = ' x accumulate' if accumulate > 1 else ''
    raise InputError(
      f'batch_size {batch_size} is not divisible by {num_parts} (the data x fsdp axes of the mesh{times})'
    )
