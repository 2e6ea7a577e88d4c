import functools

import numpy as np
import pytest

from imagenet_synth.data.augment import (
  Draws,
  RandomResizedCrop,
  center_part,
  random_crop,
  random_erasing,
  random_part,
)
from imagenet_synth.data.decode import Picture


def _images(num=50, height=5, width=7, channels=2):
  return np.random.default_rng(0).integers(1, 256, (num, height, width, channels), np.uint8)


def _cropped(images, num, size, least_area=0.08, interpolation='bilinear'):
  crop = RandomResizedCrop(size, least_area, interpolation)
  return np.stack([crop(Picture.of(image), rng) for image, rng in zip(images, _draws(0, num).generators())])


def _draws(seed, batch_size, rows=None):
  rows = np.arange(batch_size) if rows is None else rows
  return Draws(np.random.default_rng(seed), rows, batch_size)


@pytest.mark.parametrize(
  'fn',
  [
    functools.partial(random_crop, padding=2),
    functools.partial(random_part, size=3),
    functools.partial(random_erasing, probability=0.5),
  ],
)
def test_a_row_is_the_same_whatever_else_is_wanted(fn):
  images = _images(10, height=7, channels=3)
  whole = fn(images, draws=_draws(5, 10))
  for rows in (np.arange(10), np.array([3]), np.array([0, 7, 9])):
    np.testing.assert_array_equal(fn(images[rows], draws=_draws(5, 10, rows)), whole[rows])


def test_drawing_for_others_does_not_move_what_is_drawn():
  # the quickstart's figures are of these numbers
  rng = np.random.default_rng(3)
  expected = rng.integers(0, 5, (8, 2)), rng.random(8)
  draws = _draws(3, 8, np.array([1, 6]))
  np.testing.assert_array_equal(draws.integers(0, 5, 2), expected[0][[1, 6]])
  np.testing.assert_array_equal(draws.random(), expected[1][[1, 6]])


def test_generators_are_one_a_row_and_differ():
  draw = lambda rows: [rng.integers(2**62) for rng in _draws(0, 20, rows).generators()]
  numbers = draw(None)
  assert len(set(numbers)) == 20
  assert draw(np.array([17, 2])) == [numbers[17], numbers[2]]


def test_random_part_is_a_square_from_anywhere():
  images = np.broadcast_to(np.arange(20, dtype=np.uint8).reshape(1, 4, 5, 1), (300, 4, 5, 1))
  out = random_part(images, _draws(0, 300), 3)
  assert out.shape == (300, 3, 3, 1)
  first = out[:, 0, 0, 0]
  assert set(first.tolist()) == {0, 1, 2, 5, 6, 7}
  np.testing.assert_array_equal(
    out[..., 0] - first[:, None, None], np.broadcast_to([[0, 1, 2], [5, 6, 7], [10, 11, 12]], (300, 3, 3))
  )


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


def _slopes(size, num):
  """Images whose channels are 2 x, 2 y and 100: uint8 [num, size, size, 3]."""
  y, x = 2 * np.indices((size, size))
  return np.broadcast_to(
    np.stack([x, y, np.full_like(x, 100)], axis=-1).astype(np.uint8), (num, size, size, 3)
  )


def test_random_resized_crop_is_a_window_of_the_area_and_shape_asked_for():
  size, num = 100, 400
  images = _slopes(size, num)
  out = _cropped(images, num, images.shape[1])
  assert out.shape == images.shape and out.dtype == np.uint8
  assert (out[..., 2] == 100).all()
  # x doesn't change along y, nor y along x; both grow
  assert (out[..., 0] == out[:, :1, :, 0]).all() and (out[..., 1] == out[:, :, :1, 1]).all()
  x, y = out[:, 50, :, 0].astype(int), out[:, :, 50, 1].astype(int)
  assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
  # a part of `extent` pixels spans 2 (extent - 1), each end rounded by up to 1
  width, height = (np.ptp(line, axis=1) / 2 + 1 for line in (x, y))
  area, aspect = width * height / size**2, width / height
  assert 0.08 * 0.92 < area.min() < 0.12 and 0.95 < area.max() <= 1
  assert 3 / 4 * 0.93 < aspect.min() < 0.8 and 1.25 < aspect.max() < 4 / 3 * 1.07
  # uniform, but that of areas a > 3/4 a share log(1 / a) / log(4 / 3) fits
  fitting = 0.67 + (0.25 + 0.75 * np.log(0.75)) / np.log(4 / 3)
  assert abs(np.mean(area < 0.54) - 0.46 / fitting) < 0.1
  assert abs(np.mean(np.log(aspect))) < 0.03
  left, top = x[:, 0] / 2, y[:, 0] / 2
  assert left.min() == top.min() == 0
  assert (left + width).max() <= 101 and (top + height).max() <= 101


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_random_resized_crop_of_a_constant_is_the_constant(interpolation):
  images = np.full((20, 9, 9, 1), 77, np.uint8)
  out = _cropped(images, 20, images.shape[1], 0.08, interpolation)
  np.testing.assert_array_equal(out, images)


def test_a_part_is_of_the_whole_image_and_not_of_its_centre_square():
  # brightness is the column: what is cut out of a wide image reaches both of its ends
  wide = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, None], (100, 240, 1))
  out = _cropped([wide] * 300, 300, 20)
  assert out.min() < 10 and out.max() > 230
  # 8 % of the area at the least, at most as high as the image, 4/3 as wide
  extents = np.ptp(out[:, 10].astype(int), axis=1)[:, 0]
  assert 30 < extents.min() < 55 and 115 < extents.max() < 134


def test_of_what_is_hardly_more_than_a_line_the_middle_is_taken():
  line = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (2, 200, 1))
  np.testing.assert_array_equal(np.unique(_cropped([line] * 3, 3, 2)), [99, 100])


def test_the_least_area_of_a_part_is_told():
  images = _slopes(100, 300)
  out = _cropped(images, 300, 100, 0.5)
  width, height = (np.ptp(line.astype(int), axis=1) / 2 + 1 for line in (out[:, 50, :, 0], out[:, :, 50, 1]))
  assert 0.48 < (width * height / 100**2).min() < 0.56


def test_bicubic_interpolation_overshoots_at_an_edge_and_bilinear_does_not():
  images = np.zeros((50, 16, 16, 1), np.uint8) + 50
  images[:, :, 8:] = 200
  ends = {
    interpolation: _cropped(images, 50, 48, 0.08, interpolation).max()
    for interpolation in ('bilinear', 'bicubic')
  }
  assert ends['bilinear'] == 200 < ends['bicubic']


def _erased_boxes(probability, num=400, size=50):
  """(heights, widths) of what differs from a white image, which is a full box, and its pixels."""
  # a pixel of noise is white in one of 256**3 cases
  images = np.full((num, size, size, 3), 255, np.uint8)
  out = random_erasing(images, probability, _draws(1, num))
  assert out.shape == images.shape and out.dtype == np.uint8 and (images == 255).all()
  boxes, pixels = [], []
  for changed, image in zip((out != 255).any(axis=-1), out):
    if changed.any():
      rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
      box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
      assert changed[box].mean() > 0.999 and changed.sum() == changed[box].sum()
      boxes.append((len(rows), len(columns)))
      pixels.append(image[box].ravel())
  return np.array(boxes), np.concatenate(pixels)


def test_random_erasing_is_noise_in_a_box_of_the_area_and_shape_asked_for():
  boxes, pixels = _erased_boxes(1.0)
  assert len(boxes) == 400
  area, aspect = boxes.prod(axis=1) / 2500, boxes[:, 1] / boxes[:, 0]
  assert 0.015 < area.min() < 0.04 and 0.36 < area.max() < 0.42
  assert 0.25 < aspect.min() < 0.36 and 2.7 < aspect.max() < 3.9
  assert pixels.mean() == pytest.approx(127.5, abs=0.5)
  assert pixels.std() == pytest.approx(73.9, abs=0.5)


def test_random_erasing_has_its_probability():
  boxes, _ = _erased_boxes(0.25)
  # five standard deviations
  assert abs(len(boxes) - 100) < 43
  images = _images(8, 6, 6)
  np.testing.assert_array_equal(random_erasing(images, 0.0, _draws(0, 8)), images)


def test_crops_of_another_size():
  images = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None], (3, 20, 20, 1)).copy()
  np.testing.assert_array_equal(center_part(images, 8)[..., 0], np.full((3, 8, 8), np.arange(6, 14)[:, None]))
  np.testing.assert_array_equal(center_part(images, 20), images)
  out = _cropped(images, 3, 6)
  assert out.shape == (3, 6, 6, 1)
  # a ramp stays one
  assert (np.diff(out[..., 0].astype(int), axis=1) >= 0).all()
