import numpy as np
import pytest

from imagenet_synth.data.augment import random_crop, random_flip


def _images(num=50, height=5, width=7, channels=2):
  return np.random.default_rng(0).integers(1, 256, (num, height, width, channels), np.uint8)


@pytest.mark.parametrize('padding', [1, 3])
def test_random_crop_is_a_shift_with_zeros_coming_in(padding):
  images = _images()
  out = random_crop(images, padding, np.random.default_rng(4))
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
  out = random_crop(point, 1, np.random.default_rng(0))
  places, counts = np.unique(np.argwhere(out)[:, 1:3], axis=0, return_counts=True)
  np.testing.assert_array_equal(places, [(r, c) for r in (1, 2, 3) for c in (1, 2, 3)])
  # 100 each, with a standard deviation of 9.4
  assert np.abs(counts - 100).max() < 45


def test_no_padding_changes_nothing():
  images = _images()
  np.testing.assert_array_equal(random_crop(images, 0, np.random.default_rng(0)), images)


def test_random_flip_mirrors_half_of_the_images_and_does_nothing_else():
  images = _images(num=400)
  before = images.copy()
  out = random_flip(images, np.random.default_rng(0))
  same, mirrored = ((out == other).all(axis=(1, 2, 3)) for other in (images, images[:, :, ::-1]))
  np.testing.assert_array_equal(same, ~mirrored)
  # five standard deviations
  assert abs(mirrored.sum() - 200) < 50
  np.testing.assert_array_equal(images, before)
