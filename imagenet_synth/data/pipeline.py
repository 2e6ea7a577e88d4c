"""From random access to batches that are a function of (seed, step).

A run that resumes at step s, on any number of hosts, sees what an uninterrupted one would have seen:
nothing here has a position that could be lost.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from PIL import Image

from imagenet_synth.data.augment import Draws
from imagenet_synth.data.decode import as_picture

Batch = dict[str, np.ndarray]

_MAX_CACHED_BYTES = 8 * 2**30
_END = object()


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
  small = as_picture(image).resize(
    (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
  )
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
  """

  def __init__(
    self,
    source: ExampleSource,
    size: int,
    number: Callable[[dict[str, Any]], int],
    cache: bool = True,
    limit: int | None = None,
  ):
    self._source, self._size, self._number = source, size, number
    self._num = len(source) if limit is None else min(limit, len(source))
    # more threads than cores: some wait for the disk
    self._pool = ThreadPoolExecutor()
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
  return np.concatenate(
    [
      _permutation(seed, int(epoch), num_examples)[positions[epochs == epoch] % num_examples]
      for epoch in np.unique(epochs)
    ]
  )


def batches(
  images: Images | Joined,
  number_name: str,
  seed: int,
  batch_size: int,
  start: int,
  stop: int,
  rows: np.ndarray | None = None,
  augment: Callable[[np.ndarray, Draws], np.ndarray] | None = None,
) -> Iterator[Batch]:
  """Batches of steps start .. stop - 1.

  Args:
    number_name: the batch's name for the integer that goes with each image.
    rows: int [b], the part of each batch that is wanted, all if not given; what is in it does not depend
      on what is wanted.
    augment: (images uint8 [b, H, W, C], random numbers for them) -> images.

  Yields:
    {'image': uint8 [b, H, W, C], number_name: int32 [b]}.
  """
  rows = np.arange(batch_size) if rows is None else rows
  for step in range(start, stop):
    taken, numbers = images.take(batch_indices(seed, step, batch_size, len(images))[rows])
    if augment is not None:
      taken = augment(taken, Draws(np.random.default_rng((seed, step, 1)), rows, batch_size))
    yield {'image': taken, number_name: numbers}


class Ahead:
  """Iterates over elements that are made in a thread, one while the one before is used."""

  def __init__(self, elements: Iterable[Any]):
    self._elements = iter(elements)
    self._made, self._seconds = 0, 0.0

  @property
  def per_second(self) -> float:
    """Elements that the thread makes in a second of work, used so fast or not; 0 before the first."""
    return self._made / self._seconds if self._made else 0.0

  def __iter__(self) -> Iterator[Any]:
    with ThreadPoolExecutor(1) as thread:
      pending = thread.submit(self._make)
      while (element := pending.result()) is not _END:
        pending = thread.submit(self._make)
        yield element

  def _make(self) -> Any:
    start = time.perf_counter()
    element = next(self._elements, _END)
    if element is not _END:
      self._made, self._seconds = self._made + 1, self._seconds + time.perf_counter() - start
    return element
