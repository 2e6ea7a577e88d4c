import json

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


def _save(path, *steps, keep_every=None, make=_tree):
  checkpoints = Checkpoints(path, keep_every)
  for step in steps:
    checkpoints.save(step, {'state': make(step)}, {'ema': make(100 + step)}, {'job': 'base'})
  checkpoints.close()


def _restore(path, step, like):
  checkpoints = Checkpoints(path)
  try:
    return checkpoints.restore(step, {'state': like})['state']
  finally:
    checkpoints.close()


def _load(path, step, like):
  return load_ema(path, step, {'ema': like})['ema']


def _assert_equal(tree, expected):
  for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
    assert leaf.dtype == other.dtype
    np.testing.assert_array_equal(leaf, other)


def test_what_is_saved_comes_back(tmp_path):
  _save(tmp_path / 'new' / 'checkpoints', 7)
  _assert_equal(_restore(tmp_path / 'new' / 'checkpoints', 7, _like(_tree())), _tree(7))
  _assert_equal(_load(tmp_path / 'new' / 'checkpoints', 7, _like(_tree())), _tree(107))
  origin = tmp_path / 'new' / 'checkpoints' / '7' / 'origin' / 'metadata'
  assert json.loads(origin.read_text()) == {'job': 'base'}


@pytest.mark.parametrize('keep_every, expected', [(None, [7]), (3, [3, 6, 7]), (1, [2, 3, 4, 6, 7])])
def test_multiples_are_kept_and_the_latest(keep_every, expected, tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_every)
  assert checkpoints.latest is None and checkpoints.steps == []
  for step in (2, 3, 4, 6, 7):
    checkpoints.save(step, {'a': jnp.int32(step)}, {'a': jnp.int32(step)}, {})
    assert checkpoints.latest == step
  assert checkpoints.steps == expected
  checkpoints.close()
  again = Checkpoints(tmp_path, keep_every)
  assert again.latest == 7 and again.steps == expected
  again.close()
  assert sorted(int(path.name) for path in tmp_path.iterdir()) == expected


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
    _assert_equal(_load(tmp_path / 'new' / 'checkpoints', 0, _like(_tree())), _tree(seed))


def test_what_a_kill_left_of_a_save_is_no_checkpoint(tmp_path):
  _save(tmp_path, 1)
  (tmp_path / '1').rename(tmp_path / '2.orbax-checkpoint-tmp')
  _save(tmp_path, 1)
  checkpoints = Checkpoints(tmp_path)
  assert checkpoints.latest == latest_step(tmp_path) == 1
  checkpoints.close()


def test_a_missing_checkpoint_is_named(tmp_path):
  _save(tmp_path, 1)
  for path, step in ((tmp_path, 2), (tmp_path / 'nowhere', 1)):
    with pytest.raises(InputError, match=f'no checkpoint of step {step} in {path}'):
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
  message = f'checkpoint {tmp_path}/1/.* does not fit the network'
  with pytest.raises(InputError, match=message) as error:
    read(tmp_path, 1, like)
  assert '\n' not in str(error.value)
