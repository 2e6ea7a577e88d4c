import errno
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest

from imagenet_synth.core import files
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
from tests import bucket


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


@pytest.mark.parametrize('compressed', [False, True])
def test_every_flipped_bit_of_an_npz_is_found_or_harmless(compressed, tmp_path):
  path = tmp_path / 'a.npz'
  arrays = dict(x=np.arange(10, dtype=np.int16), name=np.array([b'one', b'two']))
  write_arrays(path, compressed=compressed, **arrays)
  data, num_harmless = path.read_bytes(), 0
  for place in range(len(data)):
    for bit in {place % 8, (3 * place + 5) % 8}:
      path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
      try:
        found = read_arrays(path)
      except InputError as error:
        assert str(error).startswith(f'{path} cannot be read (') and '\n' not in str(error)
        continue
      # dates and attributes of a zip file's members
      num_harmless += 1
      assert found.keys() == arrays.keys()
      for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
  assert num_harmless < len(data)


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


def test_unfinished_files_are_found_while_others_come_and_go(tmp_path):
  left = tmp_path / 'a' / '.b.host.1.tmp'
  _write(tmp_path / 'a', left.name)
  written, ended = tmp_path / 'a/8', threading.Event()

  def write():
    while not ended.is_set():
      written.mkdir()
      for number in range(20):
        (written / f'.{number}.tmp').touch()
        (written / f'.{number}.tmp').rename(written / str(number))
      files.delete_tree(written)

  with ThreadPoolExecutor() as pool:
    writer = pool.submit(write)
    found = [files.unfinished_below(tmp_path) for _ in range(300)]
    ended.set()
    writer.result()
  assert all(left in of for of in found)
  files.delete_unfinished(tmp_path)
  assert not left.exists() and files.unfinished_below(tmp_path / 'nowhere') == []


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


@pytest.mark.parametrize('text', ['gcs://bucket/a', 'http://host/a', 'gs:/bucket/a', 'gs://', 'file:///a'])
def test_what_is_neither_local_nor_in_a_bucket_is_no_path(text):
  with pytest.raises(InputError, match='is no path: it must be local, gs://BUCKET/... or s3://BUCKET/...'):
    files.as_path(text)


def test_a_bucket_whose_reader_is_not_installed_is_refused(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(InputError, match=r"s3://b/a needs s3fs: pip install 'imagenet_synth\[s3\]'"):
    files.as_path('s3://b/a')


def test_relative_paths_begin_at_their_root_and_others_stay(tmp_path):
  files.set_roots('gs://bucket/data', tmp_path)
  try:
    assert str(files.data_path('mine/a')) == 'gs://bucket/data/mine/a'
    assert str(files.weights_path('t5')) == f'{tmp_path}/t5'
    for text in ('/data/mine', 'gs://other/mine'):
      assert str(files.data_path(text)) == text
  finally:
    files.set_roots(None, None)
  assert str(files.data_path('mine/a')) == 'mine/a'


def test_names_are_matched_whatever_their_folder_is_called(tmp_path):
  folder = tmp_path / 'a [1] *'
  for name in ('b.txt', 'a.txt', '.c.txt', 'd~', 'e.png'):
    _write(folder, name)
  assert [path.name for path in files.matching(folder, '*.txt')] == ['.c.txt', 'a.txt', 'b.txt']
  assert len(files.matching(folder, '*')) == 5


def _write(folder, name, data=b''):
  """Writes a file into a folder, which is made."""
  files.make_folder(folder)
  write_atomic(folder / name, data)


@pytest.fixture(scope='module')
def in_bucket():
  with bucket.running() as env, pytest.MonkeyPatch.context() as patch:
    for name, value in env.items():
      patch.setenv(name, value)
    yield files.as_path('gs://bucket/of tests')


@pytest.fixture(params=['local', 'in a bucket'])
def place(request, tmp_path):
  """A folder, which is not there yet."""
  if request.param == 'local':
    return files.as_path(tmp_path / 'of tests' / request.node.name)
  return request.getfixturevalue('in_bucket') / request.node.name.replace('[', '(')


@pytest.mark.filterwarnings('ignore:Sending a large body directly:ResourceWarning')
def test_a_file_is_there_when_it_is_whole(place):
  assert not place.exists() and files.matching(place, '*') == []
  files.make_folder(place)
  data = np.random.default_rng(0).bytes(7 * 2**20)
  with files.open_atomic(place / 'a') as file:
    file.write(data)
    assert not (place / 'a').exists()
  assert (place / 'a').read_bytes() == data and files.size_of(place / 'a') == len(data)
  assert abs(files.modified(place / 'a') - time.time()) < 60
  with pytest.raises(KeyboardInterrupt), files.open_atomic(place / 'a') as file:
    file.write(data[::-1])
    raise KeyboardInterrupt
  gc.collect()
  assert (place / 'a').read_bytes() == data and files.matching(place, '*') == [place / 'a']


def test_any_bytes_of_a_file_can_be_read(place):
  _write(place, 'a', b'0123456789')
  file = files.RandomAccess(place / 'a')
  assert [file.read(*part) for part in ((0, 2), (3, 4), (8, 10))] == [b'01', b'3456', b'89']
  with pytest.raises(FileNotFoundError):
    files.RandomAccess(place / 'b').read(0, 1)


def test_files_are_listed_and_their_state_changes_with_them(place):
  for name in ('a', 'b/c.txt', 'b/.d', 'b/e/f.txt'):
    _write((place / name).parent, (place / name).name, name.encode())
  assert files.matching(place, '*') == [place / 'a', place / 'b']
  assert files.matching(place, '*/*.txt') == [place / 'b/c.txt']
  assert files.entries(place) == [(place / 'a', False), (place / 'b', True)]
  before = dict(files.files_below(place))
  assert list(before) == ['a', 'b/.d', 'b/c.txt', 'b/e/f.txt'] and before['a'].size == 1
  write_atomic(place / 'a', b'A')
  after = dict(files.files_below(place))
  assert after.pop('a') != before.pop('a') and after == before
  assert files.are_there([place / 'a', place / 'b/c.txt', place / 'b/no']) == [True, True, False]
  assert files.are_there([place / 'no/no']) == [False]


def test_files_below_a_folder_come_in_the_same_order_everywhere(place):
  names = ['a b/c', 'a/b.txt', 'a/b/c', 'a-b']
  for name in names:
    _write((place / name).parent, (place / name).name)
  assert [name for name, _ in files.files_below(place)] == ['a/b/c', 'a/b.txt', 'a b/c', 'a-b']


def test_of_those_that_create_a_file_at_once_one_does(place):
  files.make_folder(place)
  with ThreadPoolExecutor(8) as pool:
    made = list(pool.map(lambda number: files.create(place / 'a', b'%d' % number), range(8)))
  assert sum(made) == 1 and (place / 'a').read_bytes() == b'%d' % made.index(True)
  assert files.matching(place, '*') == [place / 'a']


def test_a_folder_is_moved_and_a_move_that_was_cut_off_goes_on(place, monkeypatch):
  for name in ('a', 'b'):
    _write(place / 'old', name, name.encode())
  if files.is_remote(place):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      patch.setattr(files, 'delete_tree', mock.Mock(side_effect=KeyboardInterrupt))
      patch.setattr(type(place), 'unlink', mock.Mock(side_effect=KeyboardInterrupt))
      files.move_folder(place / 'old', place / 'new')
  files.move_folder(place / 'old', place / 'new')
  assert not (place / 'old').exists()
  assert files.matching(place, '*') == [place / 'new']
  assert {path.name: path.read_bytes() for path in files.matching(place / 'new', '*')} == {
    'a': b'a',
    'b': b'b',
  }
  _write(place / 'old', 'c')
  with pytest.raises(OSError):
    files.move_folder(place / 'old', place / 'new')
  files.delete_tree(place)
  assert not place.exists()


def test_lines_of_a_journal_survive(place):
  files.make_folder(place)
  journal = files.Journal(place / 'a', ['first'])
  journal.append('second')
  journal.flush()
  journal.append('third')
  assert (place / 'a').read_text().splitlines()[:2] == ['first', 'second']
  journal.close()
  assert (place / 'a').read_text() == 'first\nsecond\nthird\n'


def test_arrays_are_read_from_anywhere(place):
  rows = np.arange(12, dtype=np.float32).reshape(4, 3)
  files.make_folder(place)
  write_rows(place / 'rows.npy', 4, [rows[:3], rows[3:]])
  opened = open_rows(place / 'rows.npy')
  assert isinstance(opened, np.memmap) and np.array_equal(opened, rows)
  write_arrays(place / 'a.npz', rows=rows)
  assert np.array_equal(read_arrays(place / 'a.npz')['rows'], rows)
  for read in (open_rows, read_arrays, read_json):
    with pytest.raises(InputError, match='does not exist'):
      read(place / 'no')
