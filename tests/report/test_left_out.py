"""What the report says of files that lie in the folders of images and are no examples."""

import shutil

import pytest
from PIL import Image

from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.report.left_out import left_out
from imagenet_synth.report.page import Points
from tests.report import hand_made
from tests.report.hand_made import blocks, results


@pytest.fixture
def photos(tmp_path):
  """A folder of two classes of four images each."""
  for name in ('ant', 'bee'):
    (tmp_path / 'photos/train' / name).mkdir(parents=True)
    for number in range(4):
      Image.new('L', (8 + number, 20), number).save(tmp_path / f'photos/train/{name}/{number}.png')
  return tmp_path / 'photos'


def _of(photos, split, **more):
  return {'name': 'folder', 'directory': str(photos), 'split': split, **more}


def _texts(tmp_path, *jobs):
  section = left_out(results(*jobs, folder=JobFolder(tmp_path, 'report', {})))
  return section and list(blocks(section, Points)[0].texts)


def test_what_was_left_out_is_told_once_for_a_folder_with_its_number_reason_and_names(photos, tmp_path):
  train = photos / 'train'
  (train / 'ant/0.png').write_bytes(b'nothing')
  (train / 'bee/cut.png').write_bytes((train / 'bee/3.png').read_bytes()[:50])
  (train / 'bee/notes.txt').touch()
  # two parts of one folder, at different depths of a section
  classify = hand_made.job('classify', 'classify', {}, {'real': _of(photos, 'train[:50%]', per_class=1)})
  evaluate = hand_made.job('evaluate', 'fid', {}, {'references': {'train': _of(photos, 'train[50%:]')}})
  formats, broken = _texts(tmp_path, classify, evaluate)
  assert formats == f'{train}: 1 file of a format that is not read (1 .txt).'
  assert broken.startswith(
    f'{train}: 2 of 9 files that cannot be decoded (ant/0.png: not an image file, bee/cut'
  )


def test_images_that_are_too_small_are_told_of(photos, tmp_path):
  job = hand_made.job('finetune', 'base', {}, {'blend': [{'dataset': _of(photos, 'train', min_side=9)}]})
  (text,) = _texts(tmp_path, job)
  assert '2 of 8 images, whose shorter side is less' in text and 'ant/0.png 8' in text


def test_there_is_no_section_where_nothing_was_left_out(photos, tmp_path):
  whole = hand_made.job('embed', 'embed', {}, {'dataset': _of(photos, 'train')})
  # one whose examples are no files
  digits = hand_made.job('embed', 'digits', {}, {'dataset': {'name': 'digits', 'split': 'train'}})
  assert _texts(tmp_path, whole, digits) is None


def test_a_folder_that_is_gone_stops_no_report(photos, tmp_path):
  shutil.rmtree(photos)
  (text,) = _texts(tmp_path, hand_made.job('embed', 'embed', {}, {'dataset': _of(photos, 'train')}))
  assert 'not known what was left out' in text and f'{photos}/train: no such folder' in text
