"""Augmentation of training images."""

import numpy as np


class Draws:
  """Random numbers for some rows of a batch: drawn for all, so that a row's are always the same."""

  def __init__(self, rng: np.random.Generator, rows: np.ndarray, batch_size: int):
    self._rng, self._rows, self._batch_size = rng, rows, batch_size

  def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
    """int [b, *shape] in [low, high)."""
    return self._rng.integers(low, high, (self._batch_size, *shape))[self._rows]

  def random(self) -> np.ndarray:
    """float64 [b] in [0, 1)."""
    return self._rng.random(self._batch_size)[self._rows]


def random_crop(images: np.ndarray, padding: int, draws: Draws) -> np.ndarray:
  """Shifts each image by up to `padding` pixels in each direction, zeros coming in.

  uint8 [B, H, W, C] -> the same shape. Zeros are black, the background of both embedded data sets.
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
  """Mirrors each image left to right with probability 1/2: uint8 [B, H, W, C]."""
  flips = draws.random() < 0.5
  return np.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_part(images: np.ndarray, draws: Draws, size: int) -> np.ndarray:
  """A square from anywhere in each image: uint8 [B, H, W, C] -> [B, size, size, C]."""
  num, height, width, _ = images.shape
  top = draws.integers(0, height - size + 1, 1) + np.arange(size)
  left = draws.integers(0, width - size + 1, 1) + np.arange(size)
  return images[np.arange(num)[:, None, None], top[:, :, None], left[:, None, :]]
