import functools

import numpy as np
import pytest

from imagenet_synth.data.augment import Draws, random_crop, random_flip, random_part


def _images(num=50, height=5, width=7, channels=2):
  return np.random.default_rng(0).integers(1, 256, (num, height, width, channels), np.uint8)


def _draws(seed, batch_size, rows=None):
  rows = np.arange(batch_size) if rows is None else rows
  return Draws(np.random.default_rng(seed), rows, batch_size)


@pytest.mark.parametrize('fn', [functools.partial(random_crop, padding=2), random_flip,
                                functools.partial(random_part, size=3)])
def test_a_row_is_the_same_whatever_else_is_wanted(fn):
  images = _images(10)
  whole = fn(images, draws=_draws(5, 10))
  for rows in (np.arange(10), np.array([3]), np.array([0, 7, 9])):
    np.testing.assert_array_equal(fn(images[rows], draws=_draws(5, 10, rows)), whole[rows])


def test_random_part_is_a_square_from_anywhere():
  images = np.broadcast_to(np.arange(20, dtype=np.uint8).reshape(1, 4, 5, 1), (300, 4, 5, 1))
  out = random_part(images, _draws(0, 300), 3)
  assert out.shape == (300, 3, 3, 1)
  first = out[:, 0, 0, 0]
  assert set(first.tolist()) == {0, 1, 2, 5, 6, 7}
  np.testing.assert_array_equal(out[..., 0] - first[:, None, None],
                                np.broadcast_to([[0, 1, 2], [5, 6, 7], [10, 11, 12]], (300, 3, 3)))


@pytest.mark.parametrize('padding', [1, 3])
def test_random_crop_is_a_shift_with_zeros_coming_in(padding):
  images = _images()
  out = random_crop(images, padding, _draws(4, len(images)))
  assert out.shape == images.shape and out.dtype == np.uint8
  shifts = np.random.default_rng(4).integers(0, 2 * padding + 1, (len(images), 2)) - padding
  expected = np.zeros_like(images)
  _, height, width, _ = images.shape
  for i, (down, right) in enumerate(shifts):
    for row in range(height):
      for column in range(width):
        if 0 <= row + down < height and 0 <= column + right < width:
          expected[i, row, column] = images[i, row + down, column + right]
  np.testing.assert_array_equal(out, expected)


def test_every_shift_up_to_the_padding_occurs():
  point = np.zeros((900, 5, 5, 1), np.uint8)
  point[:, 2, 2] = 1
  out = random_crop(point, 1, _draws(0, len(point)))
  places, counts = np.unique(np.argwhere(out)[:, 1:3], axis=0, return_counts=True)
  np.testing.assert_array_equal(places, [(r, c) for r in (1, 2, 3) for c in (1, 2, 3)])
  # 100 each, with a standard deviation of 9.4
  assert np.abs(counts - 100).max() < 45


def test_no_padding_changes_nothing():
  images = _images()
  np.testing.assert_array_equal(random_crop(images, 0, _draws(0, len(images))), images)


def test_random_flip_mirrors_half_of_the_images_and_does_nothing_else():
  images = _images(num=400)
  before = images.copy()
  out = random_flip(images, _draws(0, len(images)))
  same, mirrored = ((out == other).all(axis=(1, 2, 3)) for other in (images, images[:, :, ::-1]))
  np.testing.assert_array_equal(same, ~mirrored)
  # five standard deviations
  assert abs(mirrored.sum() - 200) < 50
  np.testing.assert_array_equal(images, before)
