"""Indices of shards: what is in them, when they are made anew, and where they cannot be written."""

import errno
import os

import numpy as np
import pytest
from tensorflow.core.example import example_pb2

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import shard_index, tfrecord
from imagenet_synth.data.records import Record, write_shard
from imagenet_synth.data.shard_index import index_path, load_indices

_PLACES = [(2, 0), (0, 0), (2, 1)]


@pytest.fixture
def shard(tmp_path):
  """A shard of three images, and its index."""
  path = tmp_path / 'a.tfrecord'
  _write(path, _PLACES)
  return path


def _write(path, places):
  image = np.zeros((2, 2, 3), np.uint8)
  write_shard(path, [Record(image, label, 'a', index, 0, 'a', []) for label, index in places])


def _load(shard):
  ((number, index),) = load_indices([shard])
  assert number == 0
  return index


def _no_reading(monkeypatch):
  monkeypatch.setattr(tfrecord, 'records', lambda path: pytest.fail(f'{path} is read'))


def test_an_index_says_where_records_end_and_what_they_are_of(shard, monkeypatch):
  expected = [end for end, _ in tfrecord.records(shard)]
  assert index_path(shard).name == 'a.tfrecord.index'
  assert index_path(shard).stat().st_size == 3 * 16 + 12
  _no_reading(monkeypatch)
  index = _load(shard)
  assert index.ends.tolist() == expected and expected[-1] == shard.stat().st_size
  assert list(zip(index.labels.tolist(), index.indices.tolist())) == _PLACES


def test_an_index_that_is_missing_is_made_as_the_shard_s_writer_makes_it(shard):
  written = index_path(shard).read_bytes()
  index_path(shard).unlink()
  index = _load(shard)
  assert index.labels.tolist() == [2, 0, 2]
  assert index_path(shard).read_bytes() == written
  assert sorted(path.name for path in shard.parent.iterdir()) == [shard.name, index_path(shard).name]


def test_an_index_with_any_byte_changed_or_cut_off_is_made_anew(shard):
  written = index_path(shard).read_bytes()
  damaged = [written[:i] + bytes([written[i] ^ 4]) + written[i + 1 :] for i in range(len(written))]
  for data in damaged + [written[:length] for length in range(len(written))] + [written + b'x']:
    index_path(shard).write_bytes(data)
    assert _load(shard).indices.tolist() == [0, 0, 1]
    assert index_path(shard).read_bytes() == written


def test_an_index_of_a_shard_of_another_length_is_made_anew(shard, tmp_path):
  _write(tmp_path / 'longer', [*_PLACES, (1, 0)])
  shard.write_bytes((tmp_path / 'longer').read_bytes())
  assert _load(shard).labels.tolist() == [2, 0, 2, 1]
  assert index_path(shard).read_bytes() == index_path(tmp_path / 'longer').read_bytes()


def test_a_writer_that_is_killed_leaves_no_index_of_the_shard_before(shard, monkeypatch):
  """The new shard is as long as the old one, so that its index would pass for its own."""
  kill = lambda path, index: (_ for _ in ()).throw(KeyboardInterrupt)
  monkeypatch.setattr(shard_index, 'write_index', kill)
  before = shard.stat().st_size
  with pytest.raises(KeyboardInterrupt):
    _write(shard, _PLACES[::-1])
  monkeypatch.undo()
  assert shard.stat().st_size == before
  assert _load(shard).indices.tolist() == [1, 0, 0]


@pytest.mark.parametrize('is_damaged', [True, False])
def test_where_nothing_can_be_written_an_index_is_kept_in_memory(is_damaged, shard, monkeypatch, capsys):
  def write(path, data):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  index_path(shard).unlink()
  if is_damaged:
    index_path(shard).write_bytes(b'no index')
  monkeypatch.setattr(shard_index, 'write_atomic', write)
  first = _load(shard)
  assert (
    f'{shard.parent}: indices of shards are kept in memory, not written (Read-only' in capsys.readouterr().err
  )
  assert index_path(shard).exists() == is_damaged
  with monkeypatch.context() as patch:
    _no_reading(patch)
    np.testing.assert_array_equal(_load(shard), first)
  # another shard in its place has another index
  record = shard.read_bytes()[: int(first.ends[0])]
  shard.write_bytes(record)
  assert _load(shard).indices.tolist() == [0]


def test_those_that_are_there_come_first(tmp_path):
  shards = [tmp_path / name for name in 'abc']
  for label, path in enumerate(shards):
    _write(path, [(label, 0)])
  index_path(shards[1]).unlink()
  assert [(number, index.labels.tolist()) for number, index in load_indices(shards)] == [
    (0, [0]),
    (2, [2]),
    (1, [1]),
  ]


def test_a_shard_that_is_missing_is_named(shard):
  shard.unlink()
  with pytest.raises(
    InputError, match=f'^{shard} is missing; --verify --repair lets generate make it again$'
  ):
    _load(shard)


@pytest.mark.parametrize('numbers', [{}, {'index': 1}, {'index': 1, 'image/class/label': 2**31}])
def test_records_that_no_generate_job_has_written_are_named(numbers, tmp_path):
  example = example_pb2.Example()
  for name, number in numbers.items():
    example.features.feature[name].int64_list.value.append(number)
  path = tmp_path / 'foreign.tfrecord'
  path.write_bytes(tfrecord.framed(example.SerializeToString()))
  with pytest.raises(
    InputError, match=f"^{path}: record 0 has no number 'image/class/label': it is not of a"
  ):
    _load(path)
  assert not index_path(path).exists()
