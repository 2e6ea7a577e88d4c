"""Grids as files."""

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.data.picture_grid import save_grid


def _pictures(num, size, channels):
  return np.random.default_rng(0).integers(0, 256, (num, size, size, channels), np.uint8)


@pytest.mark.parametrize('channels, mode', [(1, 'L'), (3, 'RGB')])
def test_what_is_written_is_what_is_returned(channels, mode, tmp_path):
  path = tmp_path / 'new' / 'folder' / 'grid.png'
  grid = save_grid(path, _pictures(5, 8, channels), 3)
  with Image.open(path) as picture:
    assert picture.mode == mode and picture.format == 'PNG'
    np.testing.assert_array_equal(np.asarray(picture).reshape(grid.shape), grid)


@pytest.mark.parametrize(
  'size, min_size, scale', [(8, 64, 8), (24, 64, 2), (33, 64, 1), (64, 64, 1), (80, 64, 1), (8, 32, 4)]
)
def test_small_pictures_are_enlarged_by_a_whole_number(size, min_size, scale, tmp_path):
  pictures = _pictures(2, size, 3)
  grid = save_grid(tmp_path / 'grid.png', pictures, 2, min_size)
  assert grid.shape[0] == size * scale
  first, second = grid[:, : size * scale], grid[:, -size * scale :]
  for part, picture in ((first, pictures[0]), (second, pictures[1])):
    np.testing.assert_array_equal(part, np.kron(picture, np.ones((scale, scale, 1), np.uint8)))
