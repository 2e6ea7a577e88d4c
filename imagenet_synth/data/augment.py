"""Augmentation of training images."""

import numpy as np


def random_crop(images: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
  """Shifts each image by up to `padding` pixels in each direction, zeros coming in.

  uint8 [B, H, W, C] -> the same shape. Zeros are black, the background of both embedded data sets.
  """
  if not padding:
    return images
  num, height, width, _ = images.shape
  pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  padded = np.pad(images, pad)
  shifts = rng.integers(0, 2 * padding + 1, (num, 2))
  rows = shifts[:, :1] + np.arange(height)
  columns = shifts[:, 1:] + np.arange(width)
  return padded[np.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Mirrors each image left to right with probability 1/2: uint8 [B, H, W, C]."""
  flips = rng.random(len(images)) < 0.5
  return np.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_part(images: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
  """A square from anywhere in each image: uint8 [B, H, W, C] -> [B, size, size, C]."""
  num, height, width, _ = images.shape
  top = rng.integers(0, height - size + 1, num)[:, None] + np.arange(size)
  left = rng.integers(0, width - size + 1, num)[:, None] + np.arange(size)
  return images[np.arange(num)[:, None, None], top[:, :, None], left[:, None, :]]
