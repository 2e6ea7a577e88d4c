"""A data set as tar files, as files by class, and as one npz: the same images and labels in each form."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.jobs import export
from tests import small_pipeline

_NUM, _NUM_SHARDS = 50, 3


def _config(form, size=8):
  return small_pipeline.config(
    embed=small_pipeline.EMBED,
    train=small_pipeline.TRAIN,
    generate=small_pipeline.GENERATE,
    export=dict(job='export', samples='generate', size=size, form=form),
  )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A data set, not to be changed."""
  workdir = tmp_path_factory.mktemp('whole')
  for name in ('embed', 'train', 'generate'):
    small_pipeline.finish(workdir, name, _config('adm')['jobs'][name])
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'run')


def _originals(workdir):
  source = ShardSource(sorted((workdir / 'generate/8').glob('*.tfrecord')))
  return [source[i] for i in range(len(source))]


def test_export_for_webdataset(workdir):
  pipeline.run(_config('webdataset'), workdir)
  members = {}
  for path in sorted((workdir / 'export').glob('*.tar')):
    with tarfile.open(path) as tar:
      names = [member.name for member in tar]
      # the files of an image follow each other
      assert [name.split('.')[0] for name in names[::3]] == [n.split('.')[0] for n in names[1::3]]
      members |= {name: tar.extractfile(name).read() for name in names}
  for number, example in enumerate(_originals(workdir)):
    assert members[f'{number:09d}.png'] == example['encoded']
    assert int(members[f'{number:09d}.cls']) == example['label']
    assert json.loads(members[f'{number:09d}.json'])['index'] == example['index']
  assert len(members) == 3 * _NUM


def test_export_as_a_folder(workdir):
  pipeline.run(_config('folder'), workdir)
  root = workdir / 'export/train'
  lines = [json.loads(line) for line in (root / 'metadata.jsonl').read_text().splitlines()]
  assert sorted(path.name for path in root.iterdir() if path.is_dir()) == sorted(
    {example['class_name'] for example in _originals(workdir)}
  )
  for line, example in zip(lines, _originals(workdir), strict=True):
    assert (root / line['file_name']).read_bytes() == example['encoded']
    assert line['label'] == example['label'] and line['file_name'].startswith(example['class_name'])


def test_export_for_adm_is_an_npz_of_rgb_images_and_labels(workdir):
  pipeline.run(_config('adm'), workdir)
  with np.load(workdir / 'export/samples.npz') as arrays:
    assert arrays['arr_0'].shape == (_NUM, 8, 8, 3) and arrays['arr_0'].dtype == np.uint8
    np.testing.assert_array_equal(arrays['arr_1'], np.arange(_NUM) % 10)
    for image, example in zip(arrays['arr_0'], _originals(workdir), strict=True):
      np.testing.assert_array_equal(image, np.repeat(example['image'], 3, axis=-1))
  assert [path.name for path in (workdir / 'export').glob('samples*')] == ['samples.npz']
  assert small_pipeline.result_of(workdir, 'export') == {'num_images': _NUM, 'form': 'adm', 'size': 8}


def test_export_of_a_size_that_is_not_there(tmp_path):
  with pytest.raises(InputError, match=r'export.size is 64, generate makes 8'):
    pipeline.run(_config('folder', size=64), tmp_path)


@pytest.mark.parametrize('form, pattern', [('webdataset', '*.tar'), ('folder', 'train/*/*.png')])
def test_a_killed_export_writes_the_shards_that_are_missing(form, pattern, workdir, monkeypatch):
  write, written = {'webdataset': '_write_tar', 'folder': '_write_files'}[form], []

  def killed_in_the_last(path, name, items):
    if len(written) == _NUM_SHARDS - 1:
      raise KeyboardInterrupt
    original(path, name, items)
    written.append(name)

  original = getattr(export, write)
  monkeypatch.setattr(export, write, killed_in_the_last)
  with pytest.raises(KeyboardInterrupt):
    pipeline.run(_config(form), workdir)
  monkeypatch.undo()
  kept = {path: path.stat().st_mtime_ns for path in (workdir / 'export').glob(pattern)}
  assert len(kept) == {'webdataset': 2, 'folder': 40}[form]
  pipeline.run(_config(form), workdir)
  files = sorted((workdir / 'export').glob(pattern))
  assert len(files) == {'webdataset': 3, 'folder': _NUM}[form]
  assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_jpeg_files_of_classes_with_wordnet_ids_go_into_folders_of_these(workdir):
  """Hugging Face and torchvision sort folders by name: WordNet ids keep ImageNet's label order."""
  picture = np.full((8, 8, 3), 200, np.uint8)
  records = [
    Record(picture, label, name, 0, 0, name, [], wnid)
    for label, name, wnid in ((0, 'tench', 'n01440764'), (1, 'goldfish', 'n01443537'))
  ]
  for path, record in zip(sorted((workdir / 'generate/8').glob('*.tfrecord')), [*records, None]):
    write_shard(path, [record] if record else [], image_format='jpeg')
  pipeline.run(_config('folder'), workdir)
  root = workdir / 'export/train'
  lines = [json.loads(line) for line in (root / 'metadata.jsonl').read_text().split('\n') if line]
  assert [line['file_name'] for line in lines] == ['n01440764/000000000.jpg', 'n01443537/000000001.jpg']
  assert [line['class_name'] for line in lines] == ['tench', 'goldfish']
  with Image.open(io.BytesIO((root / lines[1]['file_name']).read_bytes())) as image:
    assert image.format == 'JPEG' and image.size == (8, 8)
