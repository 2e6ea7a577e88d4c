"""The `dataset` section: what it may hold, what is known before it is opened, and what is opened."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.config import Invalid, build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.digits import NAMES
from imagenet_synth.data.source import Contents
from imagenet_synth.inputs.datasets import DatasetConfig

_GLYPHS = DatasetConfig('glyphs', 'train', {'num_examples': 40})


def _pictures(root):
  """Three images of each of two classes, whose greys are 10 times their number."""
  for number in range(6):
    path = root / 'train' / ('cat', 'ant')[number % 2] / f'{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (3, 3), 10 * number).save(path)
  return DatasetConfig('folder', 'train', directory=str(root))


def _job(workdir):
  folder = JobFolder(workdir, 'train', {'job': 'pretrain'})
  folder.start()
  return folder


def _told(contents):
  return contents.num_examples, contents.class_names, contents.captions


@pytest.mark.parametrize(
  'section',
  [
    {'name': 'digits', 'split': 'train'},
    {'name': 'digits', 'split': 'train[:90%]'},
    {'name': 'digits', 'split': 'train+validation[:10]'},
    {'name': 'digits', 'split': 'train + validation'},
    {'name': 'glyphs', 'split': 'train', 'options': {'num_examples': 3}},
    {'name': 'folder', 'split': 'train[100:]', 'directory': 'somewhere'},
  ],
)
def test_sections_that_may_be(section):
  assert build(DatasetConfig, section, 'dataset') == DatasetConfig(**section)


@pytest.mark.parametrize(
  'section, message',
  [
    (
      {'name': 'digits', 'split': 'train[10'},
      "dataset.split is 'train[10', must be a name, or a part of one",
    ),
    ({'name': 'digits', 'split': 'test+train[-9:]'}, "dataset.split is 'train[-9:]', must be a name, or a"),
    ({'name': 'digits', 'split': 'train[:120%]'}, "dataset.split is 'train[:120%]', more than 100%"),
    ({'name': 'folder', 'split': 'train'}, "dataset.directory is missing; the data set 'folder' needs one"),
    (
      {'name': 'folder', 'split': 'train', 'directory': 'a', 'options': {'seed': 1, 'size': 2}},
      "dataset.options has seed, size; the data set 'folder' has no options",
    ),
    (
      {'name': 'glyphs', 'split': 'train', 'options': {'seed': 'a'}},
      "dataset.options.seed is 'a', must be an",
    ),
  ],
)
def test_sections_that_contradict_themselves_are_refused(section, message):
  with pytest.raises(InputError, match=re.escape(f'config: {message}')):
    build(DatasetConfig, section, 'dataset')


@pytest.mark.parametrize(
  'one, other, overlap',
  [
    (DatasetConfig('digits', 'test'), DatasetConfig('digits', 'test'), True),
    (DatasetConfig('digits', 'test'), DatasetConfig('digits', 'validation'), False),
    (DatasetConfig('digits', 'train'), DatasetConfig('no_such_set', 'train'), False),
    # 600 examples: 90% are 540
    (DatasetConfig('digits', 'train[:540]'), DatasetConfig('digits', 'train[90%:]'), False),
    (DatasetConfig('digits', 'train[:541]'), DatasetConfig('digits', 'train[90%:]'), True),
    (DatasetConfig('digits', 'validation+train[:50%]'), DatasetConfig('digits', 'test + train[49%:]'), True),
    (DatasetConfig('digits', 'validation+train[:50%]'), DatasetConfig('digits', 'test+train[50%:]'), False),
    (_GLYPHS, DatasetConfig('glyphs', 'train', {'num_examples': 40}), True),
    (_GLYPHS, DatasetConfig('glyphs', 'train', {'num_examples': 40, 'seed': 1}), False),
    (DatasetConfig('digits', 'test', per_class=3), DatasetConfig('digits', 'test', per_class=5), True),
    (DatasetConfig('digits', 'test', directory='elsewhere'), DatasetConfig('digits', 'test'), False),
    (DatasetConfig('digits', 'test', directory='run/datasets'), DatasetConfig('digits', 'test'), True),
  ],
)
def test_data_sets_that_have_images_in_common(one, other, overlap, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  workdir = tmp_path / 'run'
  assert one.overlaps(other, workdir) == other.overlaps(one, workdir) == overlap


def test_parts_of_a_folder_have_images_in_common_unless_it_is_certain_that_they_have_none(tmp_path):
  _pictures(tmp_path)

  def folder(split, directory=tmp_path):
    return DatasetConfig('folder', split, directory=str(directory))

  assert folder('train[:50%]').overlaps(folder('train[49%:]', tmp_path / 'train/..'), tmp_path)
  assert not folder('train[:50%]').overlaps(folder('train[50%:]'), tmp_path)
  # how many files can be decoded is not known yet
  assert folder('train[:3]').overlaps(folder('train[50%:]'), tmp_path)


@pytest.mark.parametrize(
  'split, num_examples',
  [('train', 600), ('train[:10%]', 60), ('train[500:]', 100), ('test', 797), ('validation[100:50%]', 100)],
)
def test_what_is_in_a_split_is_known_before_it_is_there(split, num_examples, tmp_path):
  contents = DatasetConfig('digits', split).contents(tmp_path, 'dataset')
  assert _told(contents) == (num_examples, NAMES, ())
  assert not list(tmp_path.iterdir())


def test_of_splits_that_are_put_together_nothing_is_known(tmp_path):
  assert DatasetConfig('digits', 'train+test').contents(tmp_path, 'dataset') == Contents()


@pytest.mark.parametrize(
  'config, fault',
  [
    (DatasetConfig('digits', 'dev'), "x.split is 'dev', digits has train, validation, test"),
    (DatasetConfig('digits', 'dev[:3]'), "x.split is 'dev[:3]', digits has train, validation, test"),
    (
      DatasetConfig('digits', 'train[:601]'),
      "x.split is 'train[:601]': split train[:601] asks for example 601, train has 600",
    ),
    (
      DatasetConfig('digits', 'train[600:]'),
      "x.split is 'train[600:]': split train[600:] has no examples; train has 600",
    ),
    (DatasetConfig('digits', 'train', {'seed': 3}), 'x cannot be read: data set digits has no option'),
    (DatasetConfig('glyphs', 'train', {'num_examples': 0}), 'x cannot be read: glyphs'),
    (DatasetConfig('no_such_set', 'train'), "x cannot be read: no data set 'no_such_set' is prepared in"),
    (DatasetConfig('no_such_set', 'train', {'seed': 3}), 'x cannot be read: data set no_such_set takes no'),
    (DatasetConfig('folder', 'train', directory='/nowhere'), 'x cannot be read: /nowhere: no such folder'),
    (DatasetConfig('folder', 'train', directory='/dev/null'), 'x cannot be read: /dev/null: no such folder'),
  ],
)
def test_what_is_not_there_is_named_with_its_key(config, fault, tmp_path):
  with pytest.raises(Invalid) as error:
    config.contents(tmp_path, 'x')
  assert str(error.value).startswith(fault) and '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


def test_data_sets_are_in_the_workdir_unless_another_folder_is_named(tmp_path, monkeypatch):
  with pytest.raises(Invalid, match=f'is prepared in {tmp_path}/datasets:'):
    DatasetConfig('no_such_set', 'train').contents(tmp_path, 'x')
  with pytest.raises(Invalid, match='is prepared in /else/where:'):
    DatasetConfig('no_such_set', 'train', directory='/else/where').contents(tmp_path, 'x')
  monkeypatch.setenv('HOME', str(tmp_path))
  _pictures(tmp_path / 'mine')
  contents = DatasetConfig('folder', 'train', directory='~/mine').contents(tmp_path / 'work', 'x')
  assert contents.class_names == ('ant', 'cat')


def test_a_folder_is_known_by_the_names_in_it(tmp_path):
  config = _pictures(tmp_path / 'pictures')
  # how many there are only reading tells: not all may be images
  assert _told(config.contents(tmp_path, 'x')) == (None, ('ant', 'cat'), ())
  with pytest.raises(Invalid, match="x.split is 'test', folder has train"):
    DatasetConfig('folder', 'test', directory=config.directory).contents(tmp_path, 'x')


def test_a_folder_is_opened_and_what_was_found_is_kept_in_the_workdir(tmp_path):
  config = _pictures(tmp_path / 'pictures')
  source = config.open(_job(tmp_path / 'work'))
  assert source.class_names == ('ant', 'cat') and len(source) == 6
  for example in source:
    number = int(example['file_name'].split('/')[1].removesuffix('.png'))
    assert example['label'] == (number + 1) % 2
    np.testing.assert_array_equal(example['image'], np.full((3, 3, 3), 10 * number))
  assert len(list((tmp_path / 'work' / 'datasets').iterdir())) == 1
  assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == ['train']


def test_what_was_known_of_a_data_set_is_what_is_opened(tmp_path):
  source = _GLYPHS.open(_job(tmp_path))
  contents = _GLYPHS.contents(tmp_path, 'x')
  assert len(source) == contents.num_examples == 40
  assert source.class_names == contents.class_names == ()
  assert {example['caption'].decode() for example in source} <= set(contents.captions)
  assert (tmp_path / 'datasets' / 'glyphs').is_dir()


@pytest.mark.parametrize('per_class, expected', [(1, [0, 1]), (2, [0, 0, 1, 1]), (9, [0, 0, 0, 1, 1, 1])])
def test_the_first_of_each_class_can_be_taken(per_class, expected, tmp_path):
  whole = _pictures(tmp_path / 'pictures')
  config = dataclasses.replace(whole, per_class=per_class)
  source = config.open(_job(tmp_path))
  assert sorted(example['label'] for example in source) == expected
  # the images and the order are those of the whole
  names = [example['file_name'] for example in whole.open(_job(tmp_path))]
  taken = [example['file_name'] for example in source]
  assert taken == [name for name in names if name in taken]


def _of_sizes(root):
  """Two classes of three images each, of 10, 20 and 30 pixels by 40."""
  for name in ('cat', 'ant'):
    for side in (10, 20, 30):
      path = root / 'train' / name / f'{side}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('L', (40, side), side).save(path)
  return DatasetConfig('folder', 'train', directory=str(root), min_side=20)


def test_images_that_are_too_small_are_left_out_counted_and_named(tmp_path, capsys):
  config = _of_sizes(tmp_path / 'pictures')
  source = config.open(_job(tmp_path / 'work'))
  assert sorted(example['file_name'] for example in source) == [
    'ant/20.png',
    'ant/30.png',
    'cat/20.png',
    'cat/30.png',
  ]
  np.testing.assert_array_equal(source.labels(), [example['label'] for example in source])
  assert source.class_counts().tolist() == [2, 2]
  (listed,) = (tmp_path / 'work/datasets').glob('smaller-than-20-*.txt')
  assert sorted(listed.read_text().splitlines()) == ['ant/10.png 10', 'cat/10.png 10']
  said = capsys.readouterr().err
  assert 'train of 20 pixels or more: left out: 2 of 6 images, whose shorter side is less (' in said
  assert 'ant/10.png 10' in said and f'all are in {listed})' in said
  # of what is left, the first of each class
  first = dataclasses.replace(config, min_side=21, per_class=1).open(_job(tmp_path / 'work'))
  assert sorted(example['file_name'] for example in first) == ['ant/30.png', 'cat/30.png']


def test_images_that_are_smaller_than_a_size_are_counted(tmp_path):
  config = dataclasses.replace(_of_sizes(tmp_path / 'pictures'), min_side=None)
  counts = {size: config.num_smaller(size, tmp_path / 'work') for size in (10, 11, 21, 99)}
  assert counts == {10: (0, 6), 11: (2, 6), 21: (4, 6), 99: (6, 6)}
  assert dataclasses.replace(config, min_side=20).num_smaller(30, tmp_path / 'work') == (2, 4)


def test_a_min_side_that_leaves_none_is_refused(tmp_path):
  config = dataclasses.replace(_of_sizes(tmp_path / 'pictures'), min_side=31)
  with pytest.raises(InputError, match='train of 31 pixels or more: none is left; the largest of 6 has 30'):
    config.open(_job(tmp_path / 'work'))
  digits = DatasetConfig('digits', 'train', min_side=33)
  with pytest.raises(Invalid, match='x.min_side is 33, but all images of digits have 32'):
    digits.contents(tmp_path, 'x')
  assert dataclasses.replace(digits, min_side=32).contents(tmp_path, 'x').num_examples == 600
  # how many are left of a folder is not known before
  assert config.contents(tmp_path, 'x').num_examples is None


def test_what_has_no_classes_has_no_first_of_each(tmp_path):
  digits = DatasetConfig('digits', 'train', per_class=5)
  assert _told(digits.contents(tmp_path, 'x')) == (None, NAMES, ())
  with pytest.raises(Invalid, match='^x.per_class is 5, but glyphs has no classes'):
    dataclasses.replace(_GLYPHS, per_class=5).contents(tmp_path, 'x')


@pytest.mark.parametrize(
  'name, changes',
  [
    ('folder', {}),
    ('folder', {'split': 'train[:50%]'}),
    ('folder', {'per_class': 1}),
    ('glyphs', {'split': 'validation'}),
    ('glyphs', {'split': 'train[:50%]'}),
    ('digits', {'split': 'train[2:]', 'per_class': 1}),
    ('folder', {'min_side': 3}),
    ('folder', {'min_side': 2, 'per_class': 1}),
    ('digits', {'min_side': 32}),
  ],
)
def test_what_is_recorded_of_a_data_set_is_told_without_opening_it(name, changes, tmp_path):
  pictures = _pictures(tmp_path / 'pictures')
  config = {'folder': pictures, 'glyphs': _GLYPHS, 'digits': DatasetConfig('digits', 'train')}[name]
  config = dataclasses.replace(config, **changes)
  # before anything of it is there, too
  versions = config.versions(tmp_path / 'work')
  assert not (tmp_path / 'work').exists() and len(versions) == 2
  folder = _job(tmp_path / 'work')
  for uses in ('images', 'classes'):
    config.open(folder, uses)
  assert folder.origin['data'] == versions == config.versions(tmp_path / 'work')


def test_a_changed_image_is_another_version_of_images_and_the_same_of_classes(tmp_path):
  config = _pictures(tmp_path / 'pictures')
  images, classes = f'images of {config}', f'classes of {config}'
  before = config.versions(tmp_path)
  Image.new('L', (3, 3), 99).save(tmp_path / 'pictures/train/cat/0.png')
  changed = config.versions(tmp_path)
  assert changed[images] != before[images] and changed[classes] == before[classes]
  shutil.rmtree(tmp_path / 'pictures/train/cat')
  assert config.versions(tmp_path)[classes] != before[classes]


@pytest.mark.parametrize(
  'config, expected',
  [
    (DatasetConfig('digits', 'train[:90%]'), 'digits train[:90%]'),
    (DatasetConfig('folder', 'train', directory='data/mine'), 'folder data/mine train'),
    (DatasetConfig('digits', 'train', min_side=8), 'digits train of 8 pixels or more'),
    (DatasetConfig('digits', 'train', per_class=5), 'first 5 of each class of digits train'),
    (DatasetConfig('glyphs', 'train', {'seed': 1, 'num_examples': 2}), 'glyphs num_examples=2 seed=1 train'),
  ],
)
def test_a_data_set_is_called_by_all_that_tells_it_from_others(config, expected):
  assert str(config) == expected


@pytest.mark.parametrize('split', ['train[:99%]', 'validation[:30%]'])
def test_a_share_has_as_many_examples_as_were_known(split, tmp_path):
  config = DatasetConfig('glyphs', split, {'num_examples': 40})
  known = config.contents(tmp_path, 'x').num_examples
  assert len(config.open(_job(tmp_path))) == known


def test_folders_that_cannot_be_put_together_are_refused_at_once(tmp_path):
  config = _pictures(tmp_path / 'pictures')
  section = {'name': 'folder', 'split': 'train+train', 'directory': config.directory}
  with pytest.raises(InputError, match='dataset.split is'):
    build(DatasetConfig, section, 'dataset').contents(tmp_path, 'dataset')


def test_labels_for_which_all_records_are_read_are_kept(tmp_path, monkeypatch):
  config = DatasetConfig('digits', 'train[:40]')
  folder = JobFolder(tmp_path, 'job', {})
  first = config.open(folder)
  labels = first.labels()
  assert [first[i]['label'] for i in range(40)] == labels.tolist()
  again = config.open(folder)
  # another start of the job, which reads no record
  monkeypatch.setattr(type(again.records), '__getitem__', lambda *args: pytest.fail('a record was read'))
  np.testing.assert_array_equal(again.labels(), labels)
  np.testing.assert_array_equal(again.class_counts(), np.bincount(labels, minlength=10))
  assert len(list((tmp_path / 'datasets').glob('labels-*.npz'))) == 1
  # of another part, it is another file
  with pytest.raises(pytest.fail.Exception, match='a record was read'):
    DatasetConfig('digits', 'train[:41]').open(folder).labels()
