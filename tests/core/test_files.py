import errno
import gc
import os

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import (
  full_disk,
  json_hash,
  open_rows,
  read_arrays,
  read_json,
  tree_hash,
  users_cache,
  write_arrays,
  write_atomic,
  write_json,
  write_rows,
)


def test_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
  write_atomic(tmp_path / 'a', 'a longer text')
  write_atomic(tmp_path / 'a', b'short')
  assert (tmp_path / 'a').read_bytes() == b'short'
  assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_text_is_written_as_utf_8(tmp_path):
  write_atomic(tmp_path / 'a', 'naïve 图像\n')
  assert (tmp_path / 'a').read_bytes() == 'naïve 图像\n'.encode()


def test_parts_are_written_one_after_the_other(tmp_path):
  write_atomic(tmp_path / 'a', (part for part in (b'one, ', b'two')))
  assert (tmp_path / 'a').read_bytes() == b'one, two'


@pytest.mark.parametrize('step', ['replace', 'fsync'])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, step):
  write_json(tmp_path / 'job.json', {'old': 1})

  def fail(*args):
    raise OSError('disk full')

  monkeypatch.setattr(os, step, fail)
  with pytest.raises(OSError, match='disk full'):
    write_json(tmp_path / 'job.json', {'new': 2})
  assert read_json(tmp_path / 'job.json') == {'old': 1}
  # a leftover doesn't count as the file, and the next write succeeds
  monkeypatch.undo()
  write_json(tmp_path / 'job.json', {'new': 2})
  assert read_json(tmp_path / 'job.json') == {'new': 2}
  assert [p.name for p in tmp_path.iterdir()] == ['job.json']


@pytest.mark.parametrize('step', ['replace', 'fsync'])
def test_an_interrupted_first_write_leaves_no_file(tmp_path, monkeypatch, step):
  def killed(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, step, killed)
  with pytest.raises(KeyboardInterrupt):
    write_atomic(tmp_path / 'shard', b'all of it')
  assert not (tmp_path / 'shard').exists()


def test_the_file_is_complete_before_it_has_its_name(tmp_path, monkeypatch):
  calls = []
  fsync, replace = os.fsync, os.replace

  def watched_fsync(descriptor):
    calls.append(('fsync', os.fstat(descriptor).st_size))
    fsync(descriptor)

  def watched_replace(old, new):
    calls.append(('replace', old.stat().st_size))
    assert old.parent == new.parent and old.name.startswith('.') and not new.exists()
    replace(old, new)

  monkeypatch.setattr(os, 'fsync', watched_fsync)
  monkeypatch.setattr(os, 'replace', watched_replace)
  write_atomic(tmp_path / 'a', bytes(100_000))
  assert calls == [('fsync', 100_000), ('replace', 100_000)]


def test_json_round_trip(tmp_path):
  value = {'a': [1, 2.5, None, True], 'b': {'c': 'text'}}
  write_json(tmp_path / 'a.json', value)
  assert read_json(tmp_path / 'a.json') == value
  assert (tmp_path / 'a.json').read_text().endswith('}\n')


def test_a_broken_or_missing_json_file_is_named(tmp_path):
  path = tmp_path / 'job.json'
  with pytest.raises(InputError, match='job.json does not exist'):
    read_json(path)
  path.write_text('{"half": ')
  with pytest.raises(InputError, match='job.json is not valid JSON .* delete it'):
    read_json(path)


_ARRAYS = {
  'prompts': np.array(['zero', 'naïve 图像']),
  'states': np.arange(6, dtype=np.float32).reshape(2, 3),
  'count': np.int64(7),
}


def test_arrays_round_trip_with_names_shapes_and_dtypes(tmp_path):
  path = tmp_path / 'new' / 'folder' / 'a.npz'
  write_arrays(path, **_ARRAYS)
  arrays = read_arrays(path)
  assert arrays.keys() == _ARRAYS.keys()
  for name, expected in _ARRAYS.items():
    assert arrays[name].dtype == expected.dtype
    np.testing.assert_array_equal(arrays[name], expected)
  # read whole: the file may go
  path.unlink()
  assert arrays['states'][1, 2] == 5


def test_an_interrupted_write_of_arrays_leaves_the_old_ones(tmp_path, monkeypatch):
  write_arrays(tmp_path / 'a.npz', x=np.zeros(3))

  def killed(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'replace', killed)
  with pytest.raises(KeyboardInterrupt):
    write_arrays(tmp_path / 'a.npz', x=np.ones(3))
  np.testing.assert_array_equal(read_arrays(tmp_path / 'a.npz')['x'], np.zeros(3))


def test_missing_arrays_are_named(tmp_path):
  with pytest.raises(InputError, match=f'^{tmp_path}/a.npz does not exist$'):
    read_arrays(tmp_path / 'a.npz')


# numpy leaves a file open that is no zip file
@pytest.mark.filterwarnings('ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_npz_is_named(share, tmp_path):
  path = tmp_path / 'a.npz'
  write_arrays(path, **_ARRAYS)
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(InputError, match=f'^{path} cannot be read .*; delete it and run again$') as error:
    read_arrays(path)
  assert '\n' not in str(error.value)
  del error
  gc.collect()


def test_an_altered_array_and_one_of_objects_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  write_arrays(path, x=np.full(99, 7.0))
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  with pytest.raises(InputError, match='a.npz cannot be read .*CRC'):
    read_arrays(path)
  # unpickling would run what the file says
  np.savez(path, x=np.array([{}], object))
  with pytest.raises(InputError, match='a.npz cannot be read .*pickle'):
    read_arrays(path)


def test_hashes_identify_values():
  assert json_hash({'a': 1, 'b': [2]}) == json_hash({'b': [2], 'a': 1})
  assert json_hash({'a': 1, 'b': [2]}) != json_hash({'a': 1, 'b': [3]})
  assert len(json_hash(None)) == 16


def test_tree_hashes_see_paths_shapes_dtypes_and_values():
  trees = [
    {'a': np.zeros(4)},
    {'b': np.zeros(4)},
    {'a': np.zeros((2, 2))},
    {'a': np.ones(4)},
    {'a': np.zeros(8, np.float32)},
    {'a': np.zeros(4), 'b': np.zeros(0)},
  ]
  assert len({tree_hash(tree) for tree in trees}) == len(trees)
  assert tree_hash({'a': np.zeros(4)}) == tree_hash({'a': np.zeros(4)})


def test_rows_are_written_block_by_block_and_stay_on_the_disk(tmp_path):
  rows, path = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32), tmp_path / 'rows.npy'

  def blocks():
    for start in (0, 3, 6):
      assert not path.exists()
      yield rows[start : start + 3]

  write_rows(path, 7, blocks())
  opened = open_rows(path)
  assert isinstance(opened, np.memmap) and opened.dtype == np.float32
  np.testing.assert_array_equal(opened, rows)
  assert [p.name for p in tmp_path.iterdir()] == ['rows.npy']


def test_rows_that_were_not_written_to_the_end_are_not_there(tmp_path):
  def killed():
    yield np.zeros((2, 3), np.float32)
    raise KeyboardInterrupt

  for blocks, fault in ((killed(), KeyboardInterrupt), (iter([np.zeros((2, 3))]), AssertionError)):
    with pytest.raises(fault):
      write_rows(tmp_path / 'rows.npy', 4, blocks)
  assert not list(tmp_path.iterdir())
  with pytest.raises(InputError, match='rows.npy does not exist'):
    open_rows(tmp_path / 'rows.npy')


@pytest.mark.parametrize('variable, root', [('/caches', '/caches'), ('', '/home/user/.cache')])
def test_the_users_cache_is_where_other_programs_have_theirs(variable, root, monkeypatch):
  monkeypatch.setenv('HOME', '/home/user')
  monkeypatch.setenv('XDG_CACHE_HOME', variable)
  assert str(users_cache()) == f'{root}/imagenet_synth'


@pytest.mark.parametrize('reason', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_and_leaves_nothing(reason, tmp_path, monkeypatch):
  def full(fd):
    raise OSError(reason, os.strerror(reason))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError) as error:
    write_atomic(tmp_path / 'a', 'text')
  assert full_disk(error.value) == str(tmp_path / 'a') and not list(tmp_path.iterdir())


def test_a_full_disk_is_known_by_what_others_raise():
  error = ValueError(
    'RESOURCE_EXHAUSTED: Error writing "x" in "/a/b": [OS error 28: ENOSPC No space left on device]'
  )
  try:
    raise RuntimeError('checkpoint') from error
  except RuntimeError as raised:
    assert full_disk(raised) == '/a/b'
  assert full_disk(ValueError('no')) is None and full_disk(OSError(errno.EIO, 'broken')) is None
