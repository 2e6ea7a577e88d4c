"""Layouts over the eight CPU devices, and functions that run on each of them."""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imagenet_synth.core.devices import (
  AXES,
  batch_sharding,
  filled_batches,
  local_replicated,
  make_mesh,
  map_rows,
  over_devices,
  own_replicas,
  param_shardings,
  replicated,
  require_batch_size,
  require_mesh,
)
from imagenet_synth.core.errors import InputError


@pytest.mark.parametrize('fsdp, tensor, data', [(1, 1, 8), (2, 1, 4), (2, 2, 2), (1, 4, 2), (8, 1, 1)])
def test_data_takes_the_devices_that_are_left(fsdp, tensor, data):
  mesh = make_mesh(fsdp, tensor)
  assert mesh.axis_names == AXES
  assert dict(mesh.shape) == {'data': data, 'fsdp': fsdp, 'tensor': tensor}
  assert set(mesh.devices.flat) == set(jax.devices())


def test_a_mesh_of_some_devices_of_each_process():
  mesh = make_mesh(tensor=2, per_process=4)
  assert dict(mesh.shape) == {'data': 2, 'fsdp': 1, 'tensor': 2}
  assert list(mesh.devices.flat) == jax.local_devices()[:4]
  require_batch_size(6, tensor=2, per_process=4)
  with pytest.raises(InputError, match='must be a multiple of 2, as 2 devices share it'):
    require_batch_size(7, tensor=2, per_process=4)
  with pytest.raises(InputError, match='devices is 9, but a process has 8'):
    require_mesh(1, 1, per_process=9)


def test_what_some_devices_hold_is_then_on_all_of_the_host():
  array = jax.device_put(np.arange(6.0), replicated(make_mesh(per_process=2)))
  (whole,) = own_replicas([array])
  assert whole.sharding == local_replicated() and len(whole.addressable_shards) == 8
  for shard in whole.addressable_shards:
    np.testing.assert_array_equal(shard.data, np.arange(6.0))


@pytest.mark.parametrize('fsdp, tensor', [(3, 1), (1, 16), (4, 4)])
def test_a_mesh_that_does_not_fit_is_refused(fsdp, tensor):
  message = f'8 devices do not divide by {fsdp * tensor}; a dry run can plan .* --cpu_devices {fsdp * tensor}'
  with pytest.raises(InputError, match=message):
    require_mesh(fsdp, tensor)


@pytest.mark.parametrize('fsdp, tensor', [(1, 1), (2, 2), (8, 1), (1, 8)])
def test_a_mesh_that_fits_passes(fsdp, tensor):
  require_mesh(fsdp, tensor)
  assert make_mesh(fsdp, tensor).size == 8


def _boxed(shape, *names):
  return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, np.float32), names)


@pytest.mark.parametrize(
  'shape, names, expected',
  [
    ((8, 12), ('embed', 'mlp'), ('fsdp', 'tensor')),
    ((8, 12), ('vocab', 'embed'), ('tensor', 'fsdp')),
    ((3, 3, 8, 12), (None, None, 'conv_in', 'conv_out'), (None, None, 'fsdp', 'tensor')),
    ((8, 4), ('embed', 'classes'), ('fsdp', None)),
    ((6,), ('mlp',), ('tensor',)),
    # 4 does not divide 7, nor 2 divide 5
    ((7, 12), ('embed', 'mlp'), (None, 'tensor')),
    ((8, 5), ('embed', 'mlp'), ('fsdp', None)),
  ],
)
def test_parameters_are_cut_along_the_axes_that_they_name(shape, names, expected):
  mesh = make_mesh(fsdp=4, tensor=2)
  sharding = param_shardings(mesh, {'w': _boxed(shape, *names)})['w']
  assert sharding.mesh == mesh and sharding.spec == PartitionSpec(*expected)


def test_a_parameter_without_names_is_whole():
  sharding = param_shardings(make_mesh(4, 2), [jax.ShapeDtypeStruct((8, 8), np.float32)])[0]
  assert sharding.is_fully_replicated


def test_a_batch_is_cut_along_data_and_fsdp():
  mesh = make_mesh(fsdp=2, tensor=2)
  batch = jax.device_put(np.arange(24).reshape(8, 3), batch_sharding(mesh))
  assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}
  # the two devices along `tensor` have the same rows
  assert sorted(int(shard.data[0, 0]) for shard in batch.addressable_shards) == [0, 0, 6, 6, 12, 12, 18, 18]
  whole = jax.device_put(np.arange(3), replicated(mesh))
  assert {shard.data.shape for shard in whole.addressable_shards} == {(3,)}


def test_a_batch_size_that_cannot_be_cut_is_refused():
  for batch_size in (4, 8, 20):
    require_batch_size(batch_size, tensor=2)
  with pytest.raises(InputError, match='batch_size is 30, must be a multiple of 4, as 4 devices share it'):
    require_batch_size(30, tensor=2)
  with pytest.raises(InputError, match='batch_size is 8, must be a multiple of 16, .* in 2 parts'):
    require_batch_size(8, accumulate=2)


@pytest.mark.parametrize('num', [0, 1, 7, 8, 9, 30])
@pytest.mark.parametrize('batch_size, multiple, filled', [(1, 1, 1), (4, 1, 4), (4, 8, 8), (9, 8, 16)])
def test_batches_are_of_one_size_and_each_row_is_new_once(num, batch_size, multiple, filled):
  batches = list(filled_batches(num, batch_size, multiple))
  assert {len(rows) for rows, _ in batches} == ({filled} if num else set())
  assert [row for rows, num_new in batches for row in rows[:num_new]] == list(range(num))
  # what fills the last batch are rows of its own, which need no other to be read
  assert all(set(rows) == set(rows[:num_new]) for rows, num_new in batches)


def test_rows_are_divided_and_put_together():
  forward = over_devices(lambda scale, x: {'sum': scale * x.sum(axis=1), 'x': x + 1})
  x = np.arange(22, dtype=np.float32).reshape(11, 2)
  for batch_size in (1, 8, 13, 64):
    outputs = map_rows(forward, jnp.float32(2), x, batch_size)
    np.testing.assert_array_equal(outputs['sum'], 2 * x.sum(axis=1))
    np.testing.assert_array_equal(outputs['x'], x + 1)
  assert jax.local_device_count() == 8


@pytest.mark.parametrize('num, shapes', [(1, {1}), (9, {2}), (20, {4}), (64, {8}), (65, {16}), (300, {16})])
def test_each_device_has_a_batch_at_a_time_and_few_shapes_are_compiled(num, shapes):
  seen = set()

  def mapped(_, x):
    seen.add(x.shape[1])
    return x

  np.testing.assert_array_equal(map_rows(mapped, None, np.arange(num)[:, None], 16)[:, 0], np.arange(num))
  assert seen == shapes


_FLAG = '--xla_cpu_experimental_ynn_fusion_type'
# a process that takes jaxlib for a given release, and tells its flags and by which library it would convolve
_CONVOLUTION = """
import importlib.metadata, os, sys
import flax.linen as nn, jax, jax.numpy as jnp
from imagenet_synth.core.devices import use_cpus
importlib.metadata.version = lambda package: sys.argv[2]
use_cpus(int(sys.argv[1]))
convolve = nn.Conv(32, (3, 3))
variables, x = convolve.init(jax.random.key(0), jnp.ones((1, 16, 16, 32))), jnp.ones((8, 16, 16, 32))
program = jax.jit(convolve.apply).lower(variables, x).compile().as_text()
print(jax.local_device_count(), 'ynn' in program, os.environ['XLA_FLAGS'], sep='|')
"""


@pytest.mark.parametrize(
  'num_devices, release, flags, expected',
  [
    (2, '0.10.2', '', ('2', 'True', '')),
    (1, '0.10.2', '', ('1', 'False', f'{_FLAG}=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE')),
    # what users set themselves stays
    (1, '0.10.2', f'{_FLAG}=LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION', ('1', 'True', 'CONVOLUTION')),
    # one that may not know the flag
    (1, '9.0.0', '', ('1', 'True', '')),
  ],
)
def test_one_virtual_device_convolves_by_the_library_that_is_fast_on_it(
  num_devices, release, flags, expected
):
  ended = subprocess.run(
    [sys.executable, '-c', _CONVOLUTION, str(num_devices), release],
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr
  found = ended.stdout.strip().split('|')
  assert found[:2] == list(expected[:2]) and expected[2] in found[2]
  assert expected[2] or not found[2]
