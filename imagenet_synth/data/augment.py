"""Random crops, mirroring and erasing of training images; RandAugment is in randaugment.py."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from PIL import Image

from imagenet_synth.data.decode import as_picture

_RESAMPLING = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


class Draws:
  """Random numbers for some rows of a batch.

  They are drawn for the whole batch, so that a row gets the same whichever others are wanted.
  """

  def __init__(self, rng: np.random.Generator, rows: np.ndarray, batch_size: int):
    self._rng, self._rows, self._batch_size = rng, rows, batch_size

  def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
    """Returns random integers from `low` to `high` - 1: int64 [b, *shape]."""
    return self._rng.integers(low, high, (self._batch_size, *shape))[self._rows]

  def random(self) -> np.ndarray:
    """Returns random numbers in [0, 1): float64 [b]."""
    return self._rng.random(self._batch_size)[self._rows]

  def generators(self) -> list[np.random.Generator]:
    """Returns a generator for each row, for what takes a number of draws that is not known before."""
    return [np.random.default_rng(seed) for seed in self.integers(0, 2**63)]


def each_image(
  fn: Callable[[np.ndarray, np.random.Generator], np.ndarray], images: np.ndarray, draws: Draws
) -> np.ndarray:
  """Returns what `fn` makes of each image [H, W, C] of [B, H, W, C] and a generator of its own, stacked.

  It is called in threads, which run at the same time where it calls Pillow.
  """
  with ThreadPoolExecutor() as pool:
    return np.stack(list(pool.map(fn, images, draws.generators())))


def random_crop(images: np.ndarray, padding: int, draws: Draws) -> np.ndarray:
  """Returns the images, each shifted by up to `padding` pixels in each direction: uint8 [B, H, W, C].

  What comes in at the edges is black, the background of the digits and the glyphs.
  """
  if not padding:
    return images
  num, height, width, _ = images.shape
  pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  padded = np.pad(images, pad)
  shifts = draws.integers(0, 2 * padding + 1, 2)
  rows = shifts[:, :1] + np.arange(height)
  columns = shifts[:, 1:] + np.arange(width)
  return padded[np.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_flip(images: np.ndarray, draws: Draws) -> np.ndarray:
  """Returns the images, each mirrored left to right with probability 1/2: uint8 [B, H, W, C]."""
  flips = draws.random() < 0.5
  return np.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_part(images: np.ndarray, draws: Draws, size: int) -> np.ndarray:
  """Returns a square from a random place of each image: uint8 [B, H, W, C] -> [B, size, size, C]."""
  num, height, width, _ = images.shape
  top = draws.integers(0, height - size + 1, 1) + np.arange(size)
  left = draws.integers(0, width - size + 1, 1) + np.arange(size)
  return images[np.arange(num)[:, None, None], top[:, :, None], left[:, None, :]]


def center_part(images: np.ndarray, size: int) -> np.ndarray:
  """Returns the square in the middle of each image: uint8 [B, S, S, C] -> [B, size, size, C]."""
  start = (images.shape[1] - size) // 2
  return images[:, start : start + size, start : start + size]


Interpolation = Literal['bilinear', 'bicubic']
"""How the part that a crop is made of is brought to the size that is wanted."""


def random_resized_crop(
  images: np.ndarray, draws: Draws, size: int, least_area: float, interpolation: Interpolation
) -> np.ndarray:
  """Returns a random part of each image, brought to `size`: uint8 [B, S, S, C] -> [B, size, size, C].

  The part has `least_area` to all of the area, and a width of 3/4 to 4/3 of its height (Szegedy et al., 2015,
  section 6, with a least area of 0.08).
  """
  crop = functools.partial(_resized_crop, size=size, least_area=least_area, interpolation=interpolation)
  return each_image(crop, images, draws)


def random_erasing(images: np.ndarray, probability: float, draws: Draws) -> np.ndarray:
  """Returns the images, each with noise in place of a part at `probability`: uint8 [B, S, S, C].

  The part has 2 to 40 % of the area, and a width of 0.3 to 1 / 0.3 of its height (Zhong et al., 2020).
  The noise is uniform in uint8, the best of the paper's fillings.
  """
  if not probability:
    return images
  return each_image(functools.partial(_erased, probability=probability), images, draws)


def _resized_crop(
  image: np.ndarray, rng: np.random.Generator, size: int, least_area: float, interpolation: Interpolation
) -> np.ndarray:
  top, left, height, width = _random_box(rng, len(image), areas=(least_area, 1), aspects=(3 / 4, 4 / 3))
  part = as_picture(image).resize(
    (size, size), _RESAMPLING[interpolation], box=(left, top, left + width, top + height)
  )
  return np.asarray(part).reshape(size, size, image.shape[-1])


def _erased(image: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
  if rng.random() >= probability:
    return image
  top, left, height, width = _random_box(rng, len(image), areas=(0.02, 0.4), aspects=(0.3, 1 / 0.3))
  out = image.copy()
  out[top : top + height, left : left + width] = rng.integers(
    0, 256, (height, width, image.shape[-1]), np.uint8
  )
  return out


def _random_box(
  rng: np.random.Generator, size: int, areas: tuple[float, float], aspects: tuple[float, float]
) -> tuple[int, int, int, int]:
  """Returns (top, left, height, width) of a random box of whole pixels in an image [size, size].

  Its share of the area is uniform, the ratio of its width to its height uniform in the logarithm. It is
  drawn again until it fits.
  """
  while True:
    area, aspect = rng.uniform(*areas), np.exp(rng.uniform(*np.log(aspects)))
    height, width = round(size * np.sqrt(area / aspect)), round(size * np.sqrt(area * aspect))
    if 0 < height <= size and 0 < width <= size:
      return (int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1)), height, width)
