"""What whoever gets a folder of shards is told."""

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.data import dataset_card
from imagenet_synth.data.records import Record, shard_name, write_shard

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
  names = [shard_name(shard, 2) for shard in (1, 0)]
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
    # in the order of a JSON file that somebody has sorted otherwise
    'shards': {'8': dict.fromkeys(names, ''), '16': dict.fromkeys(names, '')},
    **changes,
  }


def _write(path, num=3, **changes):
  """A card beside shards of images of one grey: 100 + their number in the first one of the largest size."""
  for size, shard, grey in ((8, 0, 30), (8, 1, 0), (16, 0, 100), (16, 1, 0)):
    records = [
      Record(np.full((size, size, 1), grey and grey + i, np.uint8), 0, 'cat', i, 7, 'a cat', [])
      for i in range(num)
    ]
    write_shard(path / str(size) / shard_name(shard, 2), records)
  dataset_card.write(path, _manifest(**changes), 'CC BY 4.0')
  return (path / 'README.md').read_text()


def test_the_card_names_license_classes_stages_and_origin(tmp_path):
  lines = _write(tmp_path).splitlines()
  assert lines[0] == '# Synthetic images: generate' and '- License: CC BY 4.0' in lines
  assert '- Images: 2,400 at each of 8x8, 16x16; 1,200 of each of' in lines
  assert '| 0 | cat | a cat | 1,200 |' in lines and '| 1 | dog | a dog | 1,200 |' in lines
  # settings that are not set are left out, and those that are 0 are not
  assert '| finetune_base | 12,000 | `abc123` | num_steps 256, guidance 1.25 |' in lines
  assert '| pretrain_sr | 7 | `def456` | num_steps 8, logvar 0.0 |' in lines
  assert '- Made by job `generate`, configuration `0123`, code `fedc`.' in lines
  assert '- Plan: the images of each class are spread evenly. Seed 7.' in lines


def test_unequal_classes_have_a_range(tmp_path):
  text = _write(tmp_path, class_counts=[1000, 1400])
  assert '; 1,000 to 1,400 of each of\n  2 classes.' in text
  assert '| 0 | cat | a cat | 1,000 |' in text and '| 1 | dog | a dog | 1,400 |' in text


@pytest.mark.parametrize('num, shown', [(3, 3), (70, 60)])
def test_the_picture_is_of_the_first_images_at_the_largest_size(num, shown, tmp_path):
  _write(tmp_path, num)
  with Image.open(tmp_path / 'samples.png') as picture:
    pixels = np.asarray(picture)
  # 16 pixels, enlarged to 64, with gaps of 2
  rows = -(-shown // 10)
  assert pixels.shape == (rows * 66 - 2, 10 * 66 - 2)
  for i in range(10 * rows):
    tile = pixels[i // 10 * 66 :, i % 10 * 66 :][:64, :64]
    assert (tile == (100 + i if i < shown else 255)).all()
