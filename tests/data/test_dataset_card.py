"""What whoever gets a folder of shards is told."""

import numpy as np
import pytest
import yaml
from PIL import Image

from imagenet_synth.data import dataset_card, licenses
from imagenet_synth.data.records import Record, shard_name, write_shard
from imagenet_synth.data.synthetic_mark import SOURCE_TYPE

_STAGES = [
  {
    'run': 'finetune_base',
    'step': 12_000,
    'checkpoint_hash': 'abc123',
    'sampler': {'num_steps': 256, 'guidance': 1.25, 'logvar': None},
  },
  {'run': 'pretrain_sr', 'step': 7, 'checkpoint_hash': 'def456', 'sampler': {'num_steps': 8, 'logvar': 0.0}},
]


def _manifest(**changes):
  return {
    'origin': {'job': 'generate', 'config_hash': '0123', 'revision': 'fedc'},
    'seed': 7,
    'stages': _STAGES,
    'sizes': [8, 16],
    'class_names': ['cat', 'dog'],
    'prompts': ['a cat', 'a dog'],
    'class_counts': [1200, 1200],
    'num_images': 2400,
    'plan': 'the images of each class are spread evenly',
    **changes,
  }


def _write(path, num=3, license_name='CC BY 4.0', link=None, head=None, **changes):
  """A card beside a shard of images of one grey: 100 + their number."""
  records = [Record(np.full((16, 16, 1), 100 + i, np.uint8), 0, 'cat', i, 7, 'a cat', []) for i in range(num)]
  shard = path / shard_name(0, 2)
  write_shard(shard, records)
  about = dataset_card.About('Synthetic images: generate', licenses.named(license_name, link))
  dataset_card.write(path, shard, about, _manifest(**changes), '- Files: *.tfrecord', head)
  return (path / 'README.md').read_text()


def _head(text):
  """What the Hub reads of a card."""
  before, head, _ = text.split('---\n', 2)
  assert before == ''
  return yaml.safe_load(head)


def test_the_card_names_license_classes_stages_and_origin(tmp_path):
  lines = _write(tmp_path).splitlines()
  assert '# Synthetic images: generate' in lines and '- Files: *.tfrecord' in lines
  assert '- License: [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)' in lines
  assert '- Images: 2,400 at each of 8x8, 16x16; 1,200 of each of' in lines
  assert '| 0 | cat | a cat | 1,200 |' in lines and '| 1 | dog | a dog | 1,200 |' in lines
  # settings that are not set are left out, and those that are 0 are not
  assert '| finetune_base | 12,000 | `abc123` | num_steps 256, guidance 1.25 |' in lines
  assert '| pretrain_sr | 7 | `def456` | num_steps 8, logvar 0.0 |' in lines
  assert '- Made by job `generate`, configuration `0123`, code `fedc`.' in lines
  assert '- Plan: the images of each class are spread evenly. Seed 7.' in lines


def test_the_card_and_its_picture_say_that_the_images_are_synthetic(tmp_path):
  text = _write(tmp_path)
  assert '- **All images are synthetic.**' in text and 'synthetic' in _head(text)['tags']
  with Image.open(tmp_path / 'samples.png') as picture:
    assert SOURCE_TYPE in picture.info['XML:com.adobe.xmp']


def test_the_head_is_what_the_hub_reads(tmp_path):
  more = {'configs': [{'config_name': 'default'}], 'names': {'0': 'Katze: "ä"'}}
  assert _head(_write(tmp_path, head=more)) == {
    'pretty_name': 'Synthetic images: generate',
    'license': 'cc-by-4.0',
    'task_categories': ['image-classification'],
    'size_categories': ['1K<n<10K'],
    'annotations_creators': ['machine-generated'],
    'tags': ['synthetic', 'diffusion', 'image-classification'],
    **more,
  }


@pytest.mark.parametrize(
  'license_name, link, wanted',
  [
    ('Ours', 'https://x.org', {'license': 'other', 'license_name': 'Ours', 'license_link': 'https://x.org'}),
    ('Ours', None, {'license': 'other', 'license_name': 'Ours'}),
    (licenses.NOT_STATED, None, {'license': 'unknown'}),
  ],
)
def test_licenses_that_the_hub_has_no_name_for(license_name, link, wanted, tmp_path):
  head = _head(_write(tmp_path, license_name=license_name, link=link))
  assert {key: value for key, value in head.items() if key.startswith('license')} == wanted


@pytest.mark.parametrize(
  'num, category',
  [(999, 'n<1K'), (1000, '1K<n<10K'), (1_281_167, '1M<n<10M'), (10**9 - 1, '100M<n<1B'), (10**9, 'n>1B')],
)
def test_categories_of_sizes(num, category, tmp_path):
  assert _head(_write(tmp_path, num_images=num))['size_categories'] == [category]


def test_unequal_classes_have_a_range(tmp_path):
  text = _write(tmp_path, class_counts=[1000, 1400])
  assert '; 1,000 to 1,400 of each of\n  2 classes.' in text
  assert '| 0 | cat | a cat | 1,000 |' in text and '| 1 | dog | a dog | 1,400 |' in text


@pytest.mark.parametrize('num, shown', [(3, 3), (70, 60)])
def test_the_picture_is_of_the_first_images(num, shown, tmp_path):
  _write(tmp_path, num)
  with Image.open(tmp_path / 'samples.png') as picture:
    pixels = np.asarray(picture)
  # 16 pixels, enlarged to 64, with gaps of 2
  rows = -(-shown // 10)
  assert pixels.shape == (rows * 66 - 2, 10 * 66 - 2)
  for i in range(10 * rows):
    tile = pixels[i // 10 * 66 :, i % 10 * 66 :][:64, :64]
    assert (tile == (100 + i if i < shown else 255)).all()
