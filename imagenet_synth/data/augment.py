"""Random crops and erasing of training images; RandAugment is in randaugment.py."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import parent_process
from typing import NamedTuple

import numpy as np

from imagenet_synth.data.decode import Box, Interpolation, Picture, centre

# draws of a box, one of which fits unless the image is hardly more than a line
_TRIES = 10


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

  It is called in threads, which run at the same time where it calls Pillow; in a worker process in one.
  """
  with ThreadPoolExecutor(None if parent_process() is None else 1) as pool:
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


class Cuts(NamedTuple):
  """How random parts are cut out of images: `RandomResizedCrop`, with a generator for each image."""

  crop: 'RandomResizedCrop'
  generators: Sequence[np.random.Generator]

  def of(self, rows: Sequence[int] | np.ndarray) -> 'Cuts':
    """Returns those of some of the images, int [b]."""
    return Cuts(self.crop, [self.generators[row] for row in rows])


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """A random part of an image, as it is decoded, is brought to one size.

  The part has a width of 3/4 to 4/3 of its height (Szegedy et al., 2015, section 6, where the least
  area is 0.08).
  """

  # height and width of what comes out, in pixels
  size: int
  # the least share of the image's area that a part has
  least_area: float
  # how it is brought to that size
  interpolation: Interpolation

  def __call__(self, picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """Returns a random part of a picture: uint8 [size, size, C]."""
    height, width = picture.height, picture.width
    box = _random_box(rng, height, width, areas=(self.least_area, 1), aspects=(3 / 4, 4 / 3))
    return picture.part(box or centre(height, width), self.size, self.interpolation)


def random_erasing(images: np.ndarray, probability: float, draws: Draws) -> np.ndarray:
  """Returns the images, each with noise in place of a part at `probability`: uint8 [B, S, S, C].

  The part has 2 to 40 % of the area, and a width of 0.3 to 1 / 0.3 of its height (Zhong et al., 2020).
  The noise is uniform in uint8, the best of the paper's fillings.
  """
  if not probability:
    return images
  return each_image(functools.partial(_erased, probability=probability), images, draws)


def _erased(image: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
  if rng.random() >= probability:
    return image
  box = _random_box(rng, image.shape[0], image.shape[1], areas=(0.02, 0.4), aspects=(0.3, 1 / 0.3))
  if box is None:
    return image
  out = image.copy()
  part = out[box.top : box.top + box.height, box.left : box.left + box.width]
  part[:] = rng.integers(0, 256, part.shape, np.uint8)
  return out


def _random_box(
  rng: np.random.Generator, height: int, width: int, areas: tuple[float, float], aspects: tuple[float, float]
) -> Box | None:
  """Returns a random box of whole pixels in an image of a size; None if none that was drawn fits.

  Its share of the area is uniform, the ratio of its width to its height uniform in the logarithm.
  """
  side = math.sqrt(height * width)
  for _ in range(_TRIES):
    area, aspect = rng.uniform(*areas), np.exp(rng.uniform(*np.log(aspects)))
    high, wide = round(side * np.sqrt(area / aspect)), round(side * np.sqrt(area * aspect))
    if 0 < high <= height and 0 < wide <= width:
      top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
      return Box(left, top, wide, high)
  return None
