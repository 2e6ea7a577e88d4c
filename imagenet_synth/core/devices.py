"""Devices: the mesh that training lays arrays over, and functions that run on each device of this host.

Networks name the axes of their parameters by meaning; one table says which mesh axis each name is
cut along, as in T5X (Roberts et al., 2022). Batches are cut along `data` and `fsdp` together.
"""

import importlib.metadata
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from imagenet_synth.core.config import Invalid

AXES = ('data', 'fsdp', 'tensor')
"""The axes of every mesh."""

RULES: dict[str, str] = {
  'embed': 'fsdp',
  'mlp': 'tensor',
  'heads': 'tensor',
  'vocab': 'tensor',
  'conv_in': 'fsdp',
  'conv_out': 'tensor',
}
"""The mesh axis that parameter axes of each name are cut along. A name that is not listed is not cut."""


# what YNNPACK does on CPUs. XLA ends a process at a flag that it does not know: these releases were tried
_YNNPACK, _KNOWN_TO = '--xla_cpu_experimental_ynn_fusion_type', ('0.10.2', '0.11.2', '0.12.0.1')
_ALL_BUT_CONVOLUTIONS = 'LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE'


def use_cpus(num_devices: int) -> None:
  """Has JAX share the work of a CPU among virtual devices; to be called before anything is run.

  A single one has the whole CPU for each operation. The library that XLA then takes for convolutions is
  slower at that than the one that it took before: a ResNet-50's step takes a tenth longer. It is told to take
  the other, unless XLA_FLAGS of the environment say what to take.
  """
  jax.config.update('jax_num_cpu_devices', num_devices)
  flags = os.environ.get('XLA_FLAGS', '')
  is_known = importlib.metadata.version('jaxlib') in _KNOWN_TO
  if num_devices == 1 and is_known and _YNNPACK not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} {_YNNPACK}={_ALL_BUT_CONVOLUTIONS}'.strip()


def count_devices(per_process: int | None = None) -> int:
  """Returns how many devices all processes have, or how many they are at so many of each process."""
  return jax.device_count() if per_process is None else per_process * jax.process_count()


def require_mesh(fsdp: int, tensor: int, per_process: int | None = None) -> None:
  """Raises `Invalid` if devices that `make_mesh` takes are not there, or do not divide by fsdp x tensor."""
  if per_process is not None and per_process > jax.local_device_count():
    raise Invalid('devices', f'is {per_process}, but a process has {jax.local_device_count()}')
  num_devices, num_parts = count_devices(per_process), fsdp * tensor
  if num_devices % num_parts:
    raise Invalid(
      'fsdp',
      f'is {fsdp} and tensor is {tensor}, but {num_devices} devices do not divide by {num_parts}; a dry '
      f'run can plan for more of them with --cpu_devices {num_parts} or a multiple',
    )


def require_batch_size(
  batch_size: int, tensor: int = 1, accumulate: int = 1, per_process: int | None = None
) -> None:
  """Raises `Invalid` if the devices that `make_mesh` takes cannot share a batch equally.

  Args:
    batch_size: rows of the batch.
    tensor: devices that have the same rows, as they share each matrix product.
    accumulate: parts of the batch that are computed one after the other.
    per_process: devices of each process that take part; all if not given.
  """
  num_devices = count_devices(per_process) // tensor
  if batch_size % (num_devices * accumulate):
    times = f' in {accumulate} parts' if accumulate > 1 else ''
    raise Invalid(
      'batch_size',
      f'is {batch_size}, must be a multiple of {num_devices * accumulate}, as {num_devices} devices share '
      f'it{times}',
    )


def make_mesh(fsdp: int = 1, tensor: int = 1, per_process: int | None = None) -> Mesh:
  """Returns devices of all processes as a mesh (data, fsdp, tensor); `data` takes the rest.

  They are all, or the first ones of each process, so many as are given.
  """
  shape = (count_devices(per_process) // (fsdp * tensor), fsdp, tensor)
  devices = None
  if per_process is not None:
    of_processes = [jax.local_devices(process_index=index) for index in range(jax.process_count())]
    devices = [device for of_process in of_processes for device in of_process[:per_process]]
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def local_replicated() -> NamedSharding:
  """Returns the sharding of arrays that every device of this host holds whole."""
  return NamedSharding(Mesh(np.array(jax.local_devices()), ('device',)), PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays whose rows are cut along `data` and `fsdp`."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def own_replicas(tree: Any) -> Any:
  """Returns arrays that each device of a mesh holds whole as those of this host's devices alone.

  They are copied only to devices that are not of the mesh.
  """

  def own(array: jax.Array) -> jax.Array:
    parts = {shard.device: shard.data for shard in array.addressable_shards}
    one = next(iter(parts.values()))
    wholes = [parts[of] if of in parts else jax.device_put(one, of) for of in jax.local_devices()]
    return jax.make_array_from_single_device_arrays(array.shape, local_replicated(), wholes)

  return jax.tree.map(own, tree)


def param_shardings(mesh: Mesh | AbstractMesh, boxed: Any) -> Any:
  """Returns the shardings of a tree of boxed parameters (arrays or shapes) with logical axis names.

  An axis whose length its mesh axis does not divide is left whole: small networks have such axes.
  """

  def sharding(leaf: Any) -> NamedSharding:
    names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else ()
    shape = nn.unbox(leaf).shape
    axes = [RULES.get(name) if name else None for name in names] or [None] * len(shape)
    fits = [a if a and size % mesh.shape[a] == 0 else None for a, size in zip(axes, shape)]
    return NamedSharding(mesh, PartitionSpec(*fits))

  return jax.tree.map(sharding, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def filled_batches(num: int, batch_size: int, multiple: int = 1) -> Iterator[tuple[np.ndarray, int]]:
  """Yields rows 0 .. num - 1 in batches of one size, so that a program is compiled for one shape only.

  A batch is (rows int [B], how many of them are new). B is `batch_size` rounded up to a multiple of
  `multiple`. The last batch is filled up with a repetition of its own rows, which are not new.
  """
  batch_size = -(-batch_size // multiple) * multiple
  for start in range(0, num, batch_size):
    rows = np.arange(start, min(start + batch_size, num))
    yield np.resize(rows, batch_size), len(rows)


def over_devices(forward: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Any]:
  """Returns `forward(variables, x [n, ...])` as a function of x [devices, n, ...], a part for each device.

  Only the devices of this host take part; each has all variables.
  """
  # with several processes, a bare pmap would be over the devices of all
  return jax.pmap(forward, in_axes=(None, 0), devices=jax.local_devices())


def map_rows(
  mapped: Callable[[Any, jax.Array], Any], variables: Any, inputs: np.ndarray, batch_size: int
) -> Any:
  """Returns the tree that a function made by `over_devices` gives for inputs [N, ...]: arrays [N, ...].

  Args:
    mapped: the function.
    variables: its first argument.
    inputs: its second argument, with all rows.
    batch_size: rows that a device has at a time. The last batch is filled up, so that all have the shape that
      was compiled. Of fewer rows than a batch, each device has a power of two: these are few shapes, too.
  """
  batches, num_devices = [], jax.local_device_count()
  share = -(-len(inputs) // num_devices)
  each = min(batch_size, 1 << max(share - 1, 0).bit_length())
  for rows, _ in filled_batches(len(inputs), each * num_devices):
    batches.append(mapped(variables, inputs[rows].reshape(num_devices, -1, *inputs.shape[1:])))

  def joined(*arrays: jax.Array) -> np.ndarray:
    # not by -1: there may be no columns
    parts = [np.asarray(array).reshape(math.prod(array.shape[:2]), *array.shape[2:]) for array in arrays]
    return np.concatenate(parts)[: len(inputs)]

  # only now: while a batch is computed, the next one is brought to the devices
  return jax.tree.map(joined, *batches)
