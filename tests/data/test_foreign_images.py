"""Images from elsewhere, to be measured."""

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.foreign_images import open_images
from imagenet_synth.data.records import Record, write_shard


@pytest.fixture
def pictures():
  return np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


def _all(source):
  return np.stack([source[i]['image'] for i in range(len(source))])


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_an_npz_of_adm(save, pictures, tmp_path):
  save(tmp_path / 'a.npz', pictures, np.arange(5))
  np.testing.assert_array_equal(_all(open_images(tmp_path / 'a.npz')), pictures)


def test_image_files_at_any_depth(pictures, tmp_path):
  for i, picture in enumerate(pictures):
    path = tmp_path / f'{i % 2}' / f'{i}.png'
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path)
  np.testing.assert_array_equal(_all(open_images(tmp_path)), pictures[[0, 2, 4, 1, 3]])


def test_shards(pictures, tmp_path):
  for part, rows in enumerate((slice(0, 3), slice(3, 5))):
    write_shard(
      tmp_path / f'{part}.tfrecord', [Record(picture, 0, 'a', 0, 0, 'a', []) for picture in pictures[rows]]
    )
  np.testing.assert_array_equal(_all(open_images(tmp_path)), pictures)


def test_what_is_none_of_these(pictures, tmp_path):
  with pytest.raises(InputError, match='nothing: no such folder or npz'):
    open_images(tmp_path / 'nothing')
  with pytest.raises(InputError, match='no shards and no image files'):
    open_images(tmp_path)
  (tmp_path / 'a.npz').write_bytes(b'not a zip')
  with pytest.raises(InputError, match='a.npz: cannot be read as an npz'):
    open_images(tmp_path / 'a.npz')
  np.savez(tmp_path / 'b.npz', mu=np.zeros(3))
  with pytest.raises(InputError, match='b.npz: cannot be read as an npz with an array arr_0'):
    open_images(tmp_path / 'b.npz')
  np.savez(tmp_path / 'c.npz', pictures / 255)
  with pytest.raises(InputError, match=r'arr_0 is float64 \[5, 4, 6, 3\], must be uint8'):
    open_images(tmp_path / 'c.npz')
