import io
import shutil
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from absl import logging
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import tfds_source
from imagenet_synth.data.class_names import imagenet_names
from imagenet_synth.data.digits import Digits

PREPARE_MANY = """
import sys
import tarfile
from imagenet_synth.data.tfds_source import tfds_source
tfds_source('glyphs', 'train', sys.argv[1], num_examples=50_000)
"""

LOADED_MODULES = """
import sys
import tarfile
from imagenet_synth.data.tfds_source import tfds_source
tfds_source('digits', 'train', sys.argv[1])[0]
print('tensorflow' in sys.modules)
"""


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


def files_below(path):
  return {str(p.relative_to(path)): p.stat().st_mtime_ns for p in path.rglob('*') if p.is_file()}


def test_random_access_equals_sequential(data_dir):
  source = tfds_source.tfds_source('digits', 'train', data_dir)
  examples = list(source)
  assert len(examples) == len(source) == 600
  for index in np.random.RandomState(0).permutation(600)[:50]:
    again = source[index]
    assert set(again) == {'image', 'label'} and again['label'] == examples[index]['label']
    assert again['image'].shape == (32, 32, 1) and again['image'].dtype == np.uint8
    np.testing.assert_array_equal(again['image'], examples[index]['image'])
  for index in (-1, 600):
    with pytest.raises(IndexError, match=f'index {index} is not in 0..599'):
      source[index]


def test_slices_of_a_split(data_dir):
  whole = tfds_source.tfds_source('digits', 'train', data_dir)
  tail = tfds_source.tfds_source('digits', 'train[500:]', data_dir)
  assert len(tail) == 100
  np.testing.assert_array_equal(tail[7]['image'], whole[507]['image'])


def test_second_time_writes_nothing_and_all_is_in_data_dir(data_dir, capfd):
  tfds_source.tfds_source('digits', 'train', data_dir)
  before = files_below(data_dir)
  assert all(name.startswith(('digits/1.0.0/', 'glyphs/')) for name in before)
  tfds_source.tfds_source('digits', 'test', data_dir)
  assert files_below(data_dir) == before
  assert capfd.readouterr() == ('', '')


def test_preparation_is_one_line_to_the_user(tmp_path, capfd):
  verbosity = logging.get_verbosity()
  for _ in range(2):
    tfds_source.tfds_source('glyphs', 'train', tmp_path, num_examples=3)
  assert logging.get_verbosity() == verbosity
  out, err = capfd.readouterr()
  assert out == ''
  assert err.splitlines() == [f'preparing glyphs/n3_seed0/1.0.0 in {tmp_path}/glyphs/n3_seed0/1.0.0']


def test_other_data_sets_are_read_by_their_files(data_dir, monkeypatch):
  tfds_source.tfds_source('digits', 'train', data_dir)
  monkeypatch.delitem(tfds_source.BUILDERS, 'digits')
  assert len(tfds_source.tfds_source('digits', 'validation', data_dir)) == 400


def test_the_examples_of_each_class_are_counted(data_dir):
  source = tfds_source.tfds_source('digits', 'validation', data_dir)
  labels = [example['label'] for example in source]
  np.testing.assert_array_equal(source.class_counts(), np.bincount(labels, minlength=10))
  np.testing.assert_array_equal(source.class_counts(), [40] * 10)


def test_another_split_is_another_version(data_dir):
  splits = ('train', 'train[:50%]', 'validation')
  versions = {tfds_source.tfds_source('digits', split, data_dir).version for split in splits}
  assert len(versions) == 3


def test_files_tell_of_a_data_set_what_is_known_before_it_is_prepared(data_dir, monkeypatch):
  known = tfds_source.tfds_contents('digits', data_dir / 'nothing', {})
  assert {split: contents.num_examples for split, contents in known.items()} == {
    'train': 600,
    'validation': 400,
    'test': 797,
  }
  tfds_source.tfds_source('digits', 'train', data_dir)
  monkeypatch.delitem(tfds_source.BUILDERS, 'digits')
  assert tfds_source.tfds_contents('digits', data_dir, {}) == known
  with pytest.raises(InputError, match=r"digits takes no options here: remove \['seed'\]"):
    tfds_source.tfds_contents('digits', data_dir, {'seed': 3})


def test_the_classes_of_imagenet_are_known_before_it_is_there(tmp_path):
  contents = tfds_source.tfds_contents('imagenet2012', tmp_path, {})
  assert set(contents) == {'train', 'validation'}
  for of_split in contents.values():
    assert of_split.num_examples is None and of_split.class_names == tuple(imagenet_names())


@pytest.mark.parametrize('name', ['no_such_set', 'imagenet_v2', 'not a name', '../digits'])
def test_unknown_data_set(name, tmp_path):
  with pytest.raises(InputError, match='no data set .* is prepared in .*digits') as info:
    tfds_source.tfds_source(name, 'train', tmp_path)
  assert '\n' not in str(info.value)
  assert not list(tmp_path.iterdir())


def test_unknown_split_and_options(data_dir):
  with pytest.raises(InputError, match="no split 'dev': its splits are .*'test', 'train'"):
    tfds_source.tfds_source('digits', 'dev', data_dir)
  with pytest.raises(InputError, match=r"no option \['size'\]: .*\['num_examples', 'seed'\]"):
    tfds_source.tfds_source('glyphs', 'train', data_dir, size=3)
  with pytest.raises(InputError, match=r"digits has no option \['seed'\]: it has none"):
    tfds_source.tfds_source('digits', 'train', data_dir, seed=3)


def test_files_of_another_format(tmp_path):
  tfds_source.tfds_source('digits', 'train', tmp_path)
  info_path = tmp_path / 'digits' / '1.0.0' / 'dataset_info.json'
  info_path.write_text(info_path.read_text().replace('array_record', 'tfrecord'))
  for path in info_path.parent.glob('*.array_record-*'):
    path.rename(str(path).replace('array_record', 'tfrecord'))
  with pytest.raises(InputError, match='no array_record files: convert it'):
    tfds_source.tfds_source('digits', 'train', tmp_path)


def test_killed_preparation_leaves_nothing_that_matters(tmp_path):
  process = subprocess.Popen([sys.executable, '-c', PREPARE_MANY, str(tmp_path)])
  deadline = time.monotonic() + 60
  while not list(tmp_path.glob('glyphs/n50000_seed0/incomplete.*')):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.kill()
  process.wait()
  [leftover] = tmp_path.glob('glyphs/n50000_seed0/incomplete.*')
  # The same data set, at a size that a test can wait for, with the leftover in its place.
  for_three = tmp_path / 'glyphs' / 'n3_seed0' / leftover.name
  for_three.parent.mkdir()
  leftover.rename(for_three)
  source = tfds_source.tfds_source('glyphs', 'train', tmp_path, num_examples=3)
  assert len(list(source)) == 3
  assert len(list(tfds_source.tfds_source('glyphs', 'train', tmp_path, num_examples=3))) == 3


def test_the_slower_of_two_processes_takes_the_files_of_the_faster(tmp_path, monkeypatch):
  slow = Digits(data_dir=str(tmp_path))
  split_generators = slow._split_generators

  def overtaken(dl_manager):
    tfds_source.prepare(Digits(data_dir=str(tmp_path)))
    return split_generators(dl_manager)

  monkeypatch.setattr(slow, '_split_generators', overtaken)
  assert len(tfds_source.prepare(slow).as_data_source('train')) == 600
  assert [p.name for p in (tmp_path / 'digits').iterdir()] == ['1.0.0']


def _jpeg(colour, size=(20, 16)):
  file = io.BytesIO()
  Image.new('RGB', size, colour).save(file, 'jpeg', quality=95)
  return file.getvalue()


def _add(tar, name, data):
  info = tarfile.TarInfo(name)
  info.size = len(data)
  tar.addfile(info, io.BytesIO(data))


def _imagenet_tars(manual, train_images):
  """ILSVRC's layout: a tar of a tar for each class, and a tar of unlabelled validation images."""
  manual.mkdir(parents=True)
  with tarfile.open(manual / 'ILSVRC2012_img_train.tar', 'w') as outer:
    for wnid, images in train_images.items():
      inner_file = io.BytesIO()
      with tarfile.open(fileobj=inner_file, mode='w') as inner:
        for number, data in enumerate(images):
          _add(inner, f'{wnid}_{number}.JPEG', data)
      _add(outer, f'{wnid}.tar', inner_file.getvalue())
  with tarfile.open(manual / 'ILSVRC2012_img_val.tar', 'w') as outer:
    for number in range(3):
      _add(outer, f'ILSVRC2012_val_{number + 1:08d}.JPEG', _jpeg('blue'))


def test_imagenet_is_made_from_its_tars(tmp_path):
  colours = {'n01440764': (200, 0, 0), 'n15075141': (0, 0, 200)}
  _imagenet_tars(
    tmp_path / 'downloads/manual', {wnid: [_jpeg(colour)] * 2 for wnid, colour in colours.items()}
  )
  train = tfds_source.tfds_source('imagenet2012', 'train', tmp_path)
  assert len(train) == 4 and len(train.class_names) == 1000
  assert train.class_names == tuple(imagenet_names())
  for example in train:
    expected = colours[train.class_names[example['label']]]
    np.testing.assert_allclose(example['image'].mean(axis=(0, 1)), expected, atol=3)
  assert len(tfds_source.tfds_source('imagenet2012', 'validation', tmp_path)) == 3
  shutil.rmtree(tmp_path / 'downloads')
  assert len(tfds_source.tfds_source('imagenet2012', 'train[:50%]', tmp_path)) == 2


def test_sizes_are_read_off_headers_once(tmp_path, monkeypatch):
  sizes = [(120, 116), (109, 112), (130, 140)]
  # behind the header is nothing: it is not decoded
  images = [_jpeg('red', size)[:-200] for size in sizes]
  _imagenet_tars(tmp_path / 'downloads/manual', {'n01440764': images})
  source = tfds_source.tfds_source('imagenet2012', 'train', tmp_path)
  sides = source.sides(tmp_path / 'cache')
  names = [record['file_name'] for record in source.records]
  assert sides.names.tolist() == names
  number = {f'n01440764_{i}.JPEG'.encode(): min(size) for i, size in enumerate(sizes)}
  assert sides.pixels.tolist() == [number[name] for name in names]
  monkeypatch.setattr(tfds_source, 'shorter_side', None)
  again = tfds_source.tfds_source('imagenet2012', 'train', tmp_path).sides(tmp_path / 'cache')
  np.testing.assert_array_equal(again.pixels, sides.pixels)
  # other splits are looked at on their own
  with pytest.raises(TypeError):
    tfds_source.tfds_source('imagenet2012', 'train[:1]', tmp_path).sides(tmp_path / 'cache')


def test_a_size_that_all_have_is_known_before_and_without_a_look(data_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(tfds_source, 'shorter_side', None)
  assert tfds_source.tfds_contents('digits', tmp_path, {})['train'].side == 32
  sides = tfds_source.tfds_source('digits', 'train[:3]', data_dir).sides(tmp_path)
  assert sides.pixels.tolist() == [32] * 3 and sides.names.tolist()[2] == b'example 2'
  assert not list(tmp_path.iterdir())


def test_a_broken_image_of_imagenet_is_named(tmp_path):
  _imagenet_tars(tmp_path / 'downloads/manual', {'n01440764': [_jpeg('red', (200, 200))[:-300]]})
  with pytest.raises(InputError, match='imagenet2012 train: example 0 n01440764_0.JPEG: cannot be'):
    tfds_source.tfds_source('imagenet2012', 'train', tmp_path)[0]


def test_imagenet_without_its_tars_says_where_to_put_them(tmp_path):
  with pytest.raises(InputError, match='downloads/manual/ILSVRC2012_img_train.tar is not there'):
    tfds_source.tfds_source('imagenet2012', 'train', tmp_path)


def test_tensorflow_is_not_loaded(tmp_path):
  command = [sys.executable, '-W', 'error', '-c', LOADED_MODULES, str(tmp_path)]
  result = subprocess.run(command, capture_output=True, text=True, check=True)
  assert result.stdout == 'False\n'
