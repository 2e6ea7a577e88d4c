"""Images that a larger data set takes over from the one before it."""

import numpy as np
import pytest

from imagenet_synth.data.kept_images import KeptImages, set_aside
from imagenet_synth.data.records import Record, ShardSource, shard_name, write_shard

_FIELDS = dict(
  label=1,
  class_name='cat',
  wnid='',
  index=0,
  seed=7,
  prompt='a cat',
  stages=[{'step': 5, 'sampler': {'num_steps': 2}}],
)


def _write(path, sizes=(2, 4), **changes):
  """Two images of a class at each size, as files that encoding them again would not give."""
  for size in sizes:
    records = [
      Record(np.full((size, size, 3), 60 * index, np.uint8), **{**_FIELDS, 'index': index, **changes})
      for index in range(2)
    ]
    write_shard(path / str(size) / shard_name(0, 1), records, 'jpeg', 50)


def _names(path):
  """All files but the indices of shards, which are with each."""
  files = {str(file.relative_to(path)) for file in path.rglob('*') if file.is_file()}
  indices = {f'{file}.index' for file in files if file.endswith('.tfrecord')}
  assert indices <= files
  return files - indices


def test_shards_of_the_same_plan_stay(tmp_path):
  for _ in range(2):
    set_aside(tmp_path, {'counts': [2]})
    _write(tmp_path)
  assert _names(tmp_path) == {'plan.json', f'2/{shard_name(0, 1)}', f'4/{shard_name(0, 1)}'}
  assert KeptImages(tmp_path).find(_FIELDS, [2]) is None


@pytest.fixture
def kept(tmp_path):
  """A folder whose images were set aside for a larger plan."""
  set_aside(tmp_path, {'counts': [2]})
  _write(tmp_path)
  (tmp_path / 'manifest.json').touch()
  set_aside(tmp_path, {'counts': [3]})
  return tmp_path


def test_shards_of_another_plan_are_set_aside_and_the_manifest_is_gone(kept):
  name = shard_name(0, 1)
  assert _names(kept) == {'plan.json', f'previous/2/{name}', f'previous/4/{name}'}
  # again, as another worker would do it, and with what was made since
  _write(kept)
  set_aside(kept, {'counts': [3]})
  assert f'2/{name}' in _names(kept)


def test_what_was_being_made_when_a_third_plan_came_is_made_again(kept):
  _write(kept, label=9)
  set_aside(kept, {'counts': [4]})
  assert _names(kept) == {'plan.json', *(f'previous/{size}/{shard_name(0, 1)}' for size in (2, 4))}
  source = ShardSource([kept / 'previous/2' / shard_name(0, 1)])
  assert source[0]['label'] == 1


@pytest.mark.parametrize('index', [0, 1])
def test_an_image_is_taken_over_byte_for_byte_with_its_new_label(index, kept, tmp_path):
  images, wanted = KeptImages(kept), {**_FIELDS, 'index': index, 'label': 3}
  rows = images.find(wanted, [2, 4])
  for size, row in rows.items():
    record = images.read(size, row, wanted)
    before = ShardSource([kept / 'previous' / str(size) / shard_name(0, 1)])[index]
    write_shard(tmp_path / 'new', [record])
    after = ShardSource([tmp_path / 'new'])[0]
    assert after['encoded'] == before['encoded'] and after['label'] == 3 and after['index'] == index
    np.testing.assert_array_equal(after['image'], before['image'])
  assert list(rows) == [2, 4]


@pytest.mark.parametrize(
  'changes',
  [
    dict(seed=8),
    dict(prompt='a dog'),
    dict(stages=[{'step': 6, 'sampler': {'num_steps': 2}}]),
    dict(stages=[{'step': 5, 'sampler': {'num_steps': 3}}]),
    dict(class_name='dog'),
    dict(wnid='n02123045'),
    dict(index=2),
  ],
)
def test_an_image_that_would_be_drawn_otherwise_is_not_taken_over(changes, kept):
  images = KeptImages(kept)
  assert images.find(_FIELDS, [2]) is not None
  assert images.find({**_FIELDS, **changes}, [2]) is None


def test_an_image_is_taken_over_at_all_sizes_or_at_none(kept):
  assert KeptImages(kept).find(_FIELDS, [2, 8]) is None


def test_what_was_set_aside_is_deleted_when_it_is_not_needed_anymore(kept):
  KeptImages(kept).delete()
  assert _names(kept) == {'plan.json'}
  KeptImages(kept).delete()


def test_images_are_found_by_the_indices_and_one_record_of_each_class(tmp_path, monkeypatch):
  """Classes go by their names: 'dog' has another label now."""
  set_aside(tmp_path, {'counts': [3, 3]})
  names, rng = ('cat', 'dog'), np.random.default_rng(0)
  places = [(label, index) for label in range(2) for index in range(3)]
  for number, rows in enumerate(np.split(rng.permutation(6), 2)):
    records = [
      Record(
        np.full((2, 2, 3), 40 * row, np.uint8),
        **{**_FIELDS, 'label': places[row][0], 'class_name': names[places[row][0]], 'index': places[row][1]},
      )
      for row in rows.tolist()
    ]
    write_shard(tmp_path / '2' / shard_name(number, 2), records)
  set_aside(tmp_path, {'counts': [4, 4, 4]})
  read = []
  fields = ShardSource.fields
  monkeypatch.setattr(ShardSource, 'fields', lambda self, index: read.append(index) or fields(self, index))
  images = KeptImages(tmp_path)
  assert len(read) == 2
  for row, (label, index) in enumerate(places):
    wanted = {**_FIELDS, 'label': label + 5, 'class_name': names[label], 'index': index}
    assert (images.read(2, images.find(wanted, [2])[2], wanted).image == 40 * row).all()
  for wanted in ({'index': 3}, {'class_name': 'emu'}):
    assert images.find({**_FIELDS, **wanted}, [2]) is None
