"""From random access to batches that are a function of (seed, step).

A run that resumes at step s, on any number of hosts, sees what an uninterrupted one would have seen:
nothing here has a position that could be lost.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from PIL import Image

from imagenet_synth.data.augment import Draws
from imagenet_synth.data.decode import as_picture

Batch = dict[str, np.ndarray]

_MAX_CACHED_BYTES = 8 * 2**30


class ExampleSource(Protocol):
  """Random access to decoded examples."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """uint8 [H, W, C] -> [size, size, C]: the centre square, antialiased bilinear."""
  height, width, channels = image.shape
  if height == width == size:
    return image
  side = min(height, width)
  left, top = (width - side) // 2, (height - side) // 2
  small = as_picture(image).resize((size, size), Image.Resampling.BILINEAR,
                                   box=(left, top, left + side, top + side))
  return np.asarray(small).reshape(size, size, channels)


class Images:
  """The images of a source at one size, each with an integer.

  Args:
    source: its examples hold `image` uint8 [H, W, C].
    size: height and width wanted.
    number: example -> int, such as the label or the row of the caption's embedding.
    cache: keep decoded images in memory, so that each is decoded once; not done where they would take
      more than 8 GiB.
    limit: use the first so many examples only.
    num_workers: threads that decode.
  """

  def __init__(self, source: ExampleSource, size: int, number: Callable[[dict[str, Any]], int],
               cache: bool = True, limit: int | None = None, num_workers: int = 4):
    self._source, self._size, self._number = source, size, number
    self._num = len(source) if limit is None else min(limit, len(source))
    self._pool = ThreadPoolExecutor(num_workers)
    self._cached: tuple[np.ndarray, np.ndarray] | None = None
    if cache and 3 * size**2 * self._num <= _MAX_CACHED_BYTES:
      self._cached = self._load(np.arange(self._num))

  def __len__(self) -> int:
    return self._num

  def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int [B] -> images uint8 [B, size, size, C], numbers int32 [B]."""
    if self._cached is None:
      return self._load(indices)
    return self._cached[0][indices], self._cached[1][indices]

  def all(self) -> tuple[np.ndarray, np.ndarray]:
    return self.take(np.arange(len(self)))

  def _load(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(self._pool.map(self._one, indices))
    return np.stack([p[0] for p in pairs]), np.array([p[1] for p in pairs], np.int32)

  def _one(self, index: int) -> tuple[np.ndarray, int]:
    example = self._source[int(index)]
    return resize(example['image'], self._size), self._number(example)


class Joined:
  """Several `Images` of one size, one after the other."""

  def __init__(self, parts: Sequence[Images]):
    self._parts = parts
    self._ends = np.cumsum([len(part) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    which = np.searchsorted(self._ends, indices, side='right')
    starts = np.concatenate([[0], self._ends[:-1]])
    images, numbers = None, np.empty(len(indices), np.int32)
    for i, part in enumerate(self._parts):
      rows = np.flatnonzero(which == i)
      if not len(rows):
        continue
      taken, numbers[rows] = part.take(indices[rows] - starts[i])
      if images is None:
        images = np.empty((len(indices), *taken.shape[1:]), np.uint8)
      images[rows] = taken
    return images, numbers


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(num_examples)


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
  """The examples of the batch of `step` (from 0): int [B]. Every epoch is a permutation of all."""
  positions = step * batch_size + np.arange(batch_size)
  epochs = positions // num_examples
  return np.concatenate([_permutation(seed, int(epoch), num_examples)[
      positions[epochs == epoch] % num_examples] for epoch in np.unique(epochs)])


def batches(images: Images | Joined, number_name: str, seed: int, batch_size: int, start: int,
            stop: int, rows: np.ndarray | None = None,
            augment: Callable[[np.ndarray, Draws], np.ndarray] | None = None) -> Iterator[Batch]:
  """Batches of steps start .. stop - 1, made ahead by one in a thread.

  Args:
    number_name: the batch's name for the integer that goes with each image.
    rows: int [b], the part of each batch that is wanted, all if not given; what is in it does not depend
      on what is wanted.
    augment: (images uint8 [b, H, W, C], random numbers for them) -> images.

  Yields:
    {'image': uint8 [b, H, W, C], number_name: int32 [b]}.
  """
  rows = np.arange(batch_size) if rows is None else rows

  def make(step):
    taken, numbers = images.take(batch_indices(seed, step, batch_size, len(images))[rows])
    if augment is not None:
      taken = augment(taken, Draws(np.random.default_rng((seed, step, 1)), rows, batch_size))
    return {'image': taken, number_name: numbers}

  with ThreadPoolExecutor(1) as ahead:
    pending = ahead.submit(make, start) if start < stop else None
    for step in range(start, stop):
      batch = pending.result()
      pending = ahead.submit(make, step + 1) if step + 1 < stop else None
      yield batch
