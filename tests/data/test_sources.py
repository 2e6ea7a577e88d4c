import io
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import logging
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import sources
from imagenet_synth.data.digits import Digits

PREPARE_MANY = """
import sys
from imagenet_synth.data.sources import tfds_source
tfds_source('glyphs', 'train', sys.argv[1], num_examples=50_000)
"""

LOADED_MODULES = """
import sys
from imagenet_synth.data.sources import tfds_source
tfds_source('digits', 'train', sys.argv[1])[0]
print('tensorflow' in sys.modules)
"""


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


def files_below(path):
  return {str(p.relative_to(path)): p.stat().st_mtime_ns for p in path.rglob('*') if p.is_file()}


def test_random_access_equals_sequential(data_dir):
  source = sources.tfds_source('digits', 'train', data_dir)
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
  whole = sources.tfds_source('digits', 'train', data_dir)
  tail = sources.tfds_source('digits', 'train[500:]', data_dir)
  assert len(tail) == 100
  np.testing.assert_array_equal(tail[7]['image'], whole[507]['image'])


def test_second_time_writes_nothing_and_all_is_in_data_dir(data_dir, capfd):
  sources.tfds_source('digits', 'train', data_dir)
  before = files_below(data_dir)
  assert all(name.startswith(('digits/1.0.0/', 'glyphs/')) for name in before)
  sources.tfds_source('digits', 'test', data_dir)
  assert files_below(data_dir) == before
  assert capfd.readouterr() == ('', '')


def test_preparation_is_one_line_to_the_user(tmp_path, capfd):
  verbosity = logging.get_verbosity()
  for _ in range(2):
    sources.tfds_source('glyphs', 'train', tmp_path, num_examples=3)
  assert logging.get_verbosity() == verbosity
  out, err = capfd.readouterr()
  assert out == ''
  assert err.splitlines() == [
    f'preparing glyphs/n3_seed0/1.0.0 in {tmp_path}/glyphs/n3_seed0/1.0.0'
  ]


def test_other_data_sets_are_read_by_their_files(data_dir, monkeypatch):
  sources.tfds_source('digits', 'train', data_dir)
  monkeypatch.delitem(sources.BUILDERS, 'digits')
  assert len(sources.tfds_source('digits', 'validation', data_dir)) == 400


@pytest.mark.parametrize('name', ['no_such_set', 'imagenet2012', 'not a name', '../digits'])
def test_unknown_data_set(name, tmp_path):
  with pytest.raises(InputError, match='no data set .* is prepared in .*digits') as info:
    sources.tfds_source(name, 'train', tmp_path)
  assert '\n' not in str(info.value)
  assert not list(tmp_path.iterdir())


def test_unknown_split_and_options(data_dir):
  with pytest.raises(InputError, match="no split 'dev': its splits are .*'test', 'train'"):
    sources.tfds_source('digits', 'dev', data_dir)
  with pytest.raises(InputError, match=r"no option \['size'\]: .*\['num_examples', 'seed'\]"):
    sources.tfds_source('glyphs', 'train', data_dir, size=3)
  with pytest.raises(InputError, match=r"digits has no options: remove \['seed'\]"):
    sources.tfds_source('digits', 'train', data_dir, seed=3)


def test_files_of_another_format(tmp_path):
  sources.tfds_source('digits', 'train', tmp_path)
  info_path = tmp_path / 'digits' / '1.0.0' / 'dataset_info.json'
  info_path.write_text(info_path.read_text().replace('array_record', 'tfrecord'))
  for path in info_path.parent.glob('*.array_record-*'):
    path.rename(str(path).replace('array_record', 'tfrecord'))
  with pytest.raises(InputError, match='no array_record files: convert it'):
    sources.tfds_source('digits', 'train', tmp_path)


def test_killed_preparation_leaves_nothing_that_matters(tmp_path):
  process = subprocess.Popen([sys.executable, '-c', PREPARE_MANY, str(tmp_path)])
  deadline = time.monotonic() + 60
  while not list(tmp_path.glob('glyphs/*/incomplete.*')):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.kill()
  process.wait()
  [leftover] = tmp_path.glob('glyphs/*/incomplete.*')
  # The same data set, at a size that a test can wait for, with the leftover in its place.
  for_three = tmp_path / 'glyphs' / 'n3_seed0' / leftover.name
  for_three.parent.mkdir()
  leftover.rename(for_three)
  source = sources.tfds_source('glyphs', 'train', tmp_path, num_examples=3)
  assert len(list(source)) == 3
  assert len(list(sources.tfds_source('glyphs', 'train', tmp_path, num_examples=3))) == 3


def test_the_slower_of_two_processes_takes_the_files_of_the_faster(tmp_path, monkeypatch):
  slow = Digits(data_dir=str(tmp_path))
  split_generators = slow._split_generators

  def overtaken(dl_manager):
    sources.prepare(Digits(data_dir=str(tmp_path)))
    return split_generators(dl_manager)

  monkeypatch.setattr(slow, '_split_generators', overtaken)
  assert len(sources.prepare(slow).as_data_source('train')) == 600
  assert [p.name for p in (tmp_path / 'digits').iterdir()] == ['1.0.0']


def test_decode_gives_the_channels_asked_for():
  pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'png')
  np.testing.assert_array_equal(sources.decode_image(file.getvalue(), 1), pixels[..., None])
  np.testing.assert_array_equal(
    sources.decode_image(file.getvalue(), 3), np.repeat(pixels[..., None], 3, axis=-1)
  )


def test_tensorflow_is_not_loaded(tmp_path):
  command = [sys.executable, '-W', 'error', '-c', LOADED_MODULES, str(tmp_path)]
  result = subprocess.run(command, capture_output=True, text=True, check=True)
  assert result.stdout == 'False\n'
