import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from imagenet_synth.core.checkpoint import Checkpoints, latest_step, load_ema, save_ema
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.core.errors import InputError


def _tree(step=0):
  # large enough that Orbax writes it in a file of its own
  w = np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)
  return {'w': jnp.asarray(w), 'half': jnp.full(4, step, jnp.bfloat16), 'step': jnp.int32(step)}


def _like(tree):
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _save(path, *steps, make=_tree, **kwargs):
  checkpoints = Checkpoints(path, **kwargs)
  for step in steps:
    checkpoints.save_state(step, {'state': make(step)})
    checkpoints.save_snapshot(step, {'ema': make(100 + step)}, {'job': 'base'})
  checkpoints.close()


def _restore(path, step, like):
  checkpoints = Checkpoints(path)
  try:
    assert checkpoints.states[-1] == step
    return checkpoints.restore({'state': like})['state']
  finally:
    checkpoints.close()


def _load(path, step, like):
  return load_ema(path / 'checkpoints', step, {'ema': like})['ema']


def _kept(path):
  return {
    name: sorted(int(folder.name) for folder in (path / name).iterdir()) for name in ('checkpoints', 'resume')
  }


def _assert_equal(tree, expected):
  for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
    assert leaf.dtype == other.dtype
    np.testing.assert_array_equal(leaf, other)


def test_what_is_saved_comes_back(tmp_path):
  _save(tmp_path / 'new', 7)
  _assert_equal(_restore(tmp_path / 'new', 7, _like(_tree())), _tree(7))
  _assert_equal(_load(tmp_path / 'new', 7, _like(_tree())), _tree(107))
  origin = tmp_path / 'new' / 'checkpoints' / '7' / 'origin' / 'metadata'
  assert json.loads(origin.read_text()) == {'job': 'base'}


def test_snapshots_are_for_good_and_of_states_the_latest_two_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  assert checkpoints.restore({}) is None and checkpoints.snapshots == []
  for step in (2, 3, 5, 6):
    checkpoints.save_state(step, {'a': jnp.int32(step)})
    checkpoints.save_snapshot(10 * step, {'a': jnp.int32(step)}, {})
  assert (checkpoints.states, checkpoints.snapshots) == ([5, 6], [20, 30, 50, 60])
  assert checkpoints.restore({'a': jnp.int32(0)})['a'] == 6
  checkpoints.close()
  assert _kept(tmp_path) == {'checkpoints': [20, 30, 50, 60], 'resume': [5, 6]}
  # of a run that has ended, the snapshots alone stay
  Checkpoints(tmp_path).close(ended=True)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['checkpoints']


def test_a_snapshot_that_is_there_stays(tmp_path):
  """A run that goes on from an earlier state comes by it again; `select` may be reading it."""
  _save(tmp_path, 1, 2)
  _save(tmp_path, 1, 2, 3, make=lambda step: _tree(step + 1))
  for step, seed in ((1, 101), (2, 102), (3, 104)):
    _assert_equal(_load(tmp_path, step, _like(_tree())), _tree(seed))


def test_snapshots_can_be_rounded_and_come_back_as_float32(tmp_path):
  _save(tmp_path, 1, snapshot_dtype='bfloat16')
  loaded, exact = _load(tmp_path, 1, _like(_tree())), _tree(101)
  assert loaded['w'].dtype == jnp.float32 and loaded['step'] == exact['step']
  np.testing.assert_array_equal(loaded['w'], exact['w'].astype(jnp.bfloat16).astype(jnp.float32))
  assert not np.array_equal(loaded['w'], exact['w'])
  # the state is not
  _assert_equal(_restore(tmp_path, 1, _like(_tree())), _tree(1))


def test_a_run_that_an_earlier_version_has_begun_is_refused_in_one_line(tmp_path):
  _save(tmp_path, 1)
  (tmp_path / 'resume/1/state').rename(tmp_path / 'checkpoints/1/state')
  shutil.rmtree(tmp_path / 'resume')
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(
    InputError, match=f'^{tmp_path}/checkpoints is of a run that an earlier version'
  ) as error:
    checkpoints.restore({'state': _like(_tree())})
  assert '\n' not in str(error.value)
  checkpoints.close()
  # what it has left to other jobs can be read
  _assert_equal(_load(tmp_path, 1, _like(_tree())), _tree(101))


def test_arrays_are_laid_out_as_asked(tmp_path):
  mesh = make_mesh(fsdp=4, tensor=2)
  cut = NamedSharding(mesh, PartitionSpec('fsdp', 'tensor'))
  make = lambda step: {'w': jax.device_put(_tree(step)['w'], cut)}
  _save(tmp_path, 1, make=make)
  for spec in (PartitionSpec('fsdp', 'tensor'), PartitionSpec(None, 'fsdp'), PartitionSpec()):
    sharding = NamedSharding(mesh, spec)
    like = {'w': jax.ShapeDtypeStruct((64, 64), np.float32, sharding=sharding)}
    for read, seed in ((_restore, 1), (_load, 101)):
      out = read(tmp_path, 1, like)
      assert out['w'].sharding == sharding
      _assert_equal(out, {'w': _tree(seed)['w']})


def test_weights_from_elsewhere_are_read_as_trained_ones_and_written_again(tmp_path):
  for seed in (1, 2):
    save_ema(tmp_path / 'new' / 'checkpoints', 0, {'ema': _tree(seed)}, {'job': 'import'})
    assert latest_step(tmp_path / 'new' / 'checkpoints') == 0
    _assert_equal(_load(tmp_path / 'new', 0, _like(_tree())), _tree(seed))


def test_what_a_kill_left_of_a_save_is_no_checkpoint(tmp_path):
  _save(tmp_path, 1)
  for name in _kept(tmp_path):
    (tmp_path / name / '1').rename(tmp_path / name / '2.orbax-checkpoint-tmp')
  _save(tmp_path, 1)
  checkpoints = Checkpoints(tmp_path)
  assert checkpoints.snapshots == checkpoints.states == [latest_step(tmp_path / 'checkpoints')] == [1]
  checkpoints.close()


def test_a_missing_checkpoint_is_named(tmp_path):
  _save(tmp_path, 1)
  for path, step in ((tmp_path, 2), (tmp_path / 'nowhere', 1)):
    with pytest.raises(InputError, match=f'no checkpoint of step {step} in {path}/checkpoints'):
      _load(path, step, _like(_tree()))
  with pytest.raises(InputError, match=f'no checkpoint in {tmp_path / "nowhere"}'):
    latest_step(tmp_path / 'nowhere')
  assert not (tmp_path / 'nowhere').exists()


@pytest.mark.parametrize(
  'like',
  [
    {'w': jax.ShapeDtypeStruct((3, 2), np.float32)},
    {'v': jax.ShapeDtypeStruct((2, 3), np.float32)},
    {'w': jax.ShapeDtypeStruct((2, 3), np.float32), 'v': jax.ShapeDtypeStruct((), np.float32)},
  ],
  ids=['shape', 'name', 'more'],
)
@pytest.mark.parametrize('read', [_restore, _load])
def test_a_checkpoint_of_another_network_is_refused(read, like, tmp_path):
  _save(tmp_path, 1, make=lambda step: {'w': jnp.zeros((2, 3))})
  message = f'checkpoint {tmp_path}/(checkpoints|resume)/1/.* does not fit the network'
  with pytest.raises(InputError, match=message) as error:
    read(tmp_path, 1, like)
  assert '\n' not in str(error.value)


def test_shapes_without_a_layout_are_read_into_the_memory_of_the_host(tmp_path):
  """As those who look at weights on other devices than they were trained on need it; Orbax refuses that."""
  mesh = make_mesh(fsdp=8)
  w = jax.device_put(_tree()['w'], NamedSharding(mesh, PartitionSpec('fsdp')))
  save_ema(tmp_path, 3, {'w': w}, {'job': 'import'})
  loaded = load_ema(tmp_path, 3, {'w': jax.ShapeDtypeStruct((64, 64), jnp.float32)})['w']
  assert isinstance(loaded, np.ndarray)
  np.testing.assert_array_equal(loaded, _tree()['w'])


_READ_ON_ONE_DEVICE = """
import pathlib, sys
import jax, numpy as np
from imagenet_synth.core.checkpoint import load_ema
assert jax.device_count() == 1
loaded = load_ema(pathlib.Path(sys.argv[1]), 3, {'w': jax.ShapeDtypeStruct((64, 64), np.float32)})
print(float(np.sum(loaded['w'])))
"""


def test_weights_are_read_where_there_are_other_devices(tmp_path):
  w = jax.device_put(_tree()['w'], NamedSharding(make_mesh(), PartitionSpec()))
  save_ema(tmp_path, 3, {'w': w}, {'job': 'import'})
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  environment |= {'JAX_NUM_CPU_DEVICES': '1'}
  done = subprocess.run(
    [sys.executable, '-c', _READ_ON_ONE_DEVICE, tmp_path], env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert float(done.stdout.split()[-1]) == pytest.approx(float(w.sum()), abs=1e-3)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_damaged_checkpoint_is_not_loaded(dtype, tmp_path):
  _save(tmp_path, 1, snapshot_dtype=dtype)
  like = {'ema': _like(_tree())}
  files = [path for path in (tmp_path / 'checkpoints/1').rglob('*') if path.is_file()]
  rng = np.random.default_rng(0)
  for path in files:
    data = path.read_bytes()
    place = int(rng.integers(len(data)))
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(
      InputError, match=f'{path} was altered.*put back a copy of the checkpoint, or let --redo'
    ):
      load_ema(tmp_path / 'checkpoints', 1, like)
    path.write_bytes(data)
  assert load_ema(tmp_path / 'checkpoints', 1, like) and any(path.name == 'SHA256SUMS' for path in files)


def test_a_snapshot_that_a_kill_has_left_without_sums_gets_them(tmp_path):
  _save(tmp_path, 1)
  (tmp_path / 'checkpoints/1/SHA256SUMS').unlink()
  _save(tmp_path, 2)
  assert all((tmp_path / f'checkpoints/{step}/SHA256SUMS').exists() for step in (1, 2))


@pytest.mark.parametrize('kind', ['checkpoints', 'resume'])
def test_what_a_full_disk_or_a_kill_has_left_half_written_is_deleted(kind, tmp_path):
  _save(tmp_path, 1)
  left = tmp_path / kind / '2.orbax-checkpoint-tmp'
  (left / 'state.orbax-checkpoint-tmp').mkdir(parents=True)
  (left / '_CHECKPOINT_METADATA').write_text('{}')
  _save(tmp_path, 3)
  assert not left.exists() and (tmp_path / 'checkpoints/3').exists()
