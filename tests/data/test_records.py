"""Shards read back as written, by us and by TensorFlow; damage never goes unnoticed."""

import hashlib
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from imagenet_synth.core.checksums import kept_hash
from imagenet_synth.core.errors import InputError
from imagenet_synth.data import records as records_module
from imagenet_synth.data import shard_index
from imagenet_synth.data.records import Record, ShardSource, read_shard, shard_name, write_shard
from imagenet_synth.data.shard_index import index_path


def _records(num, channels, size=4):
  rng = np.random.default_rng(0)
  draw = lambda: rng.integers(0, 256, (size, size, channels), np.uint8)
  return [
    Record(draw(), i % 3, f'class {i % 3}', i, 7, f'a {i % 3}', [{'step': 5}], f'n{i}') for i in range(num)
  ]


@pytest.mark.parametrize('channels', [1, 3])
def test_round_trip_over_shards(channels, tmp_path):
  records = _records(5, channels)
  paths = [tmp_path / 'new' / shard_name(shard, 2) for shard in range(2)]
  write_shard(paths[0], records[:3])
  write_shard(paths[1], records[3:])
  source = ShardSource(paths)
  assert len(source) == 5
  for i in (4, 0, 3, 2, 1):
    example = source[i]
    np.testing.assert_array_equal(example.pop('image'), records[i].image)
    assert example.pop('encoded').startswith(b'\x89PNG')
    assert example == {
      'label': i % 3,
      'class_name': f'class {i % 3}',
      'index': i,
      'seed': 7,
      'prompt': f'a {i % 3}',
      'stages': [{'step': 5}],
      'wnid': f'n{i}',
    }


def test_what_is_known_of_an_image_is_read_without_it(tmp_path):
  write_shard(tmp_path / 'shard', _records(3, 1))
  source = ShardSource([tmp_path / 'shard'])
  for i in range(3):
    fields = {k: v for k, v in source[i].items() if k not in ('image', 'encoded')}
    assert source.fields(i) == fields
    assert source.as_written(i) == {'encoded': source[i]['encoded'], 'channels': 1, **fields}


def test_a_shard_is_read_from_start_to_end_without_its_index(tmp_path):
  path = tmp_path / 'shard'
  write_shard(path, _records(3, 1))
  expected = list(ShardSource([path]))
  index_path(path).write_bytes(b'damaged')
  for example, as_indexed in zip(read_shard(path), expected, strict=True):
    np.testing.assert_array_equal(example.pop('image'), as_indexed.pop('image'))
    assert example == as_indexed
  assert index_path(path).read_bytes() == b'damaged'


def test_an_image_that_is_encoded_already_is_written_as_it_is(tmp_path):
  write_shard(tmp_path / 'first', _records(1, 3), 'jpeg', 30)
  encoded = ShardSource([tmp_path / 'first'])[0]['encoded']
  write_shard(tmp_path / 'second', [_records(1, 3)[0]._replace(encoded=encoded)], 'png')
  assert ShardSource([tmp_path / 'second'])[0]['encoded'] == encoded


def test_jpeg_is_small_and_near(tmp_path):
  rng = np.random.default_rng(0)
  image = np.asarray(PIL.Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64)))
  record = Record(image, 0, 'a', 0, 0, 'a', [])
  for kind in ('png', 'jpeg'):
    write_shard(tmp_path / kind, [record], kind, quality=95)
  (example,) = _read_all(tmp_path / 'jpeg')
  assert example['encoded'].startswith(b'\xff\xd8')
  assert np.abs(example['image'].astype(int) - image).mean() < 2
  assert (tmp_path / 'jpeg').stat().st_size < (tmp_path / 'png').stat().st_size


def test_the_hash_is_that_of_the_file(tmp_path):
  write_shard(tmp_path / 'shard', _records(2, 1), keep_hash=True)
  assert kept_hash(tmp_path / 'shard') == hashlib.sha256((tmp_path / 'shard').read_bytes()).hexdigest()


def test_tensorflow_reads_the_same(tmp_path):
  records = _records(3, 3)
  write_shard(tmp_path / 'shard', records)
  features = {
    'image/encoded': tf.io.FixedLenFeature([], tf.string),
    'image/class/label': tf.io.FixedLenFeature([], tf.int64),
    'image/class/text': tf.io.FixedLenFeature([], tf.string),
  }
  data = tf.data.TFRecordDataset(str(tmp_path / 'shard'))
  for record, serialized in zip(records, data, strict=True):
    example = tf.io.parse_single_example(serialized, features)
    np.testing.assert_array_equal(tf.io.decode_png(example['image/encoded']), record.image)
    assert example['image/class/label'] == record.label
    assert example['image/class/text'].numpy().decode() == record.class_name


def test_equal_records_give_equal_bytes(tmp_path):
  for name in ('a', 'b'):
    write_shard(tmp_path / name, _records(3, 1))
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
  assert (tmp_path / 'a.index').read_bytes() == (tmp_path / 'b.index').read_bytes()
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'a.index', 'b', 'b.index']


def _read_all(path):
  source = ShardSource([path])
  return [source[i] for i in range(len(source))]


@pytest.mark.parametrize('has_index', [True, False])
def test_every_flipped_byte_is_noticed(has_index, tmp_path):
  path = tmp_path / 'shard'
  write_shard(path, _records(2, 1, size=2))
  whole = path.read_bytes()
  for place in range(len(whole)):
    if not has_index:
      index_path(path).unlink(missing_ok=True)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    with pytest.raises(InputError, match=rf'{path}: record [01] is damaged'):
      _read_all(path)


def test_every_cut_is_noticed_unless_it_is_between_records(tmp_path):
  path = tmp_path / 'shard'
  write_shard(path, _records(1, 1, size=2))
  length_of_one = path.stat().st_size
  write_shard(path, _records(2, 1, size=2))
  whole = path.read_bytes()
  for length in range(len(whole)):
    path.write_bytes(whole[:length])
    if length in (0, length_of_one):
      # a cut that only the plan in the manifest can tell
      assert len(_read_all(path)) == length // length_of_one
      continue
    with pytest.raises(InputError, match=rf'{path}: record {length // length_of_one} is damaged'):
      _read_all(path)


def test_no_shards_hold_no_records(tmp_path):
  assert len(ShardSource([])) == 0
  write_shard(tmp_path / 'shard', [])
  assert len(ShardSource([tmp_path / 'shard'])) == 0


def test_a_shard_that_is_missing_is_named_when_the_source_is_opened_and_later(tmp_path, monkeypatch):
  monkeypatch.setattr(records_module, '_MAX_OPEN_FILES', 1)
  paths = [tmp_path / name for name in ('a', 'b')]
  for path in paths:
    write_shard(path, _records(1, 1))
  source = ShardSource(paths)
  source[0], source[1]
  paths[0].unlink()
  for read in (lambda: source[0], lambda: ShardSource(paths)):
    with pytest.raises(InputError, match=f'^{paths[0]} is missing; --verify --repair'):
      read()
  with pytest.raises(IndexError):
    source[2]


def test_an_index_of_another_shard_of_the_same_length_is_named(tmp_path):
  """Nothing but reading can tell: it is whole and fits the size of the file."""
  a, b = tmp_path / 'a', tmp_path / 'b'
  some = _records(2, 1)
  write_shard(a, [some[0]._replace(prompt='a'), some[1]._replace(prompt='a longer one')])
  write_shard(b, [some[0]._replace(prompt='a longer one'), some[1]._replace(prompt='a')])
  index_path(a).write_bytes(index_path(b).read_bytes())
  with pytest.raises(InputError, match=f'^{index_path(a)} is of another shard .*; delete it and run again$'):
    _read_all(a)
  index_path(a).unlink()
  assert [example['prompt'] for example in _read_all(a)] == ['a', 'a longer one']


def test_a_shard_that_is_cut_off_while_it_is_read_is_named(tmp_path):
  path = tmp_path / 'shard'
  write_shard(path, _records(2, 1))
  source = ShardSource([path])
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(InputError, match=f'{path}: record 1 is damaged .the file ends within it.'):
    source[1]


def _num_open_files():
  return len(os.listdir('/dev/fd'))


@pytest.fixture
def limited_files():
  """The limit of open files is 40 above those that are open."""
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (_num_open_files() + 40, limits[1]))
  yield
  resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_many_more_shards_than_files_may_be_open_are_read_by_threads(limited_files, tmp_path, monkeypatch):
  monkeypatch.setattr(records_module, '_MAX_OPEN_FILES', 8)
  monkeypatch.setattr(shard_index, '_NUM_READERS', 8)
  some = _records(300, 1, size=1)
  paths = [tmp_path / shard_name(shard, 100) for shard in range(100)]
  for shard, path in enumerate(paths):
    write_shard(path, some[3 * shard : 3 * shard + 3])
  index_path(paths[50]).unlink()
  before = _num_open_files()
  source = ShardSource(paths)
  order = np.random.default_rng(0).permutation(np.tile(np.arange(300), 5)).tolist()
  with ThreadPoolExecutor(8) as pool:
    for index, example in zip(order, pool.map(source.__getitem__, order), strict=True):
      assert example['index'] == index
      np.testing.assert_array_equal(example['image'], some[index].image)
  assert _num_open_files() == before + 8
  labels, indices = source.places()
  assert labels.dtype == indices.dtype == np.int32
  np.testing.assert_array_equal(indices, np.arange(300))
  np.testing.assert_array_equal(labels, np.arange(300) % 3)
  # what a source has open goes with it
  del source
  assert _num_open_files() == before
