"""Batches of training images that depend on the seed and the step alone.

A run that resumes at step s, on any number of hosts, sees what an uninterrupted one would have seen:
nothing here has a position that could be lost.
"""

import abc
import dataclasses
import functools
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from multiprocessing import parent_process
from typing import Any, Generic, TypeVar

import numpy as np

from imagenet_synth.data.augment import Cuts, Draws, RandomResizedCrop
from imagenet_synth.data.decode import Interpolation, Picture, centre
from imagenet_synth.data.source import Examples
from imagenet_synth.data.workers import Batch, made_by_workers

T = TypeVar('T')
# images that are decoded by threads in less time than workers take to start
_WORTH_WORKERS = 20_000
# of each worker process
_WORKER_THREADS = 4
# examples whose permutation is in the memory of each process: 16 MiB
_MOST_PERMUTED = 2**22

SHORTEST_SHARE = Fraction(1, 64)
"""The smallest share of each batch, and the finest: the pattern of a batch's rows stays short by it."""
MAX_CACHED_BYTES = 8 * 2**30
"""What all decoded images that a process keeps may take."""


def share_of_batch(share: float) -> Fraction:
  """Returns a share of each batch without the error that a float has: the nearest one that is possible."""
  return Fraction(share).limit_denominator(SHORTEST_SHARE.denominator)


def resize(image: np.ndarray, size: int, interpolation: Interpolation = 'bilinear') -> np.ndarray:
  """Returns the centre square of an image, resized: uint8 [H, W, C] -> [size, size, C]."""
  height, width, _ = image.shape
  if height == width == size:
    return image
  return Picture.of(image).part(centre(height, width), size, interpolation)


@functools.lru_cache(maxsize=8)
def _permutation(seed: tuple[int, ...], epoch: int, num_examples: int) -> np.ndarray:
  return np.random.default_rng((*seed, epoch)).permutation(num_examples).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _shuffle(seed: tuple[int, ...], epoch: int, num_examples: int) -> Sequence[int]:
  """Returns a permutation, of which Grain computes any place by itself, in 10 microseconds."""
  # it takes a second to import
  import grain

  number = np.random.default_rng((*seed, epoch)).integers(2**32)
  return grain.MapDataset.range(num_examples).shuffle(seed=int(number))


def batch_indices(
  seed: tuple[int, ...], step: int, batch_size: int, num_examples: int, rows: np.ndarray | None = None
) -> np.ndarray:
  """Returns the examples of rows int [b] of the batch of `step`, which counts from 0: int [b].

  Every epoch is a random permutation of all examples; a batch may span two epochs. All rows are meant where
  none are given.
  """
  positions = step * batch_size + (np.arange(batch_size) if rows is None else rows)
  epochs, indices = positions // num_examples, np.empty(len(positions), int)
  for epoch in np.unique(epochs):
    mine = epochs == epoch
    places = positions[mine] % num_examples
    if num_examples <= _MOST_PERMUTED:
      indices[mine] = _permutation(seed, int(epoch), num_examples)[places]
    else:
      shuffled = _shuffle(seed, int(epoch), num_examples)
      indices[mine] = [shuffled[int(place)] for place in places]
  return indices


class Drawable(abc.ABC):
  """Images of one size, each with a number, that batches are drawn from."""

  @abc.abstractmethod
  def __len__(self) -> int:
    """Returns how many images there are."""

  @abc.abstractmethod
  def take(self, indices: np.ndarray, cuts: Cuts | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [B, S, S, C] and their numbers int32 [B], for indices int [B], B > 0.

    With `cuts`, random parts of the images, as they were before they were brought to their size.
    """

  @property
  @abc.abstractmethod
  def in_memory(self) -> bool:
    """Returns whether images are read and decoded once only."""

  @abc.abstractmethod
  def load(self) -> None:
    """Reads what is kept in memory now: what cannot be read is found before anything else is done."""

  def batch_indices(self, seed: int, step: int, batch_size: int, rows: np.ndarray) -> np.ndarray:
    """Returns the images of rows int [b] of the batch of `step`, which counts from 0: int [b]."""
    return batch_indices((seed,), step, batch_size, len(self), rows)

  def weights(self, indices: np.ndarray) -> np.ndarray | None:
    """Returns what images count in the loss: float32 [B], for indices int [B]; None if all count the same."""
    del indices
    return None

  @property
  def first_pass(self) -> Fraction:
    """Returns how many images are drawn until each of the first part has been, once."""
    return Fraction(len(self))


class _Memory:
  """What all decoded images of the process may take: several sets share it."""

  def __init__(self, num_bytes: int):
    self._left, self._lock = num_bytes, threading.Lock()

  def take(self, num_bytes: int, user: Any) -> bool:
    """Returns whether there is so much left; it is taken for as long as `user` lives."""
    with self._lock:
      if num_bytes > self._left:
        return False
      self._left -= num_bytes
    weakref.finalize(user, self._give_back, num_bytes)
    return True

  def _give_back(self, num_bytes: int) -> None:
    with self._lock:
      self._left += num_bytes


_memory = _Memory(MAX_CACHED_BYTES)


class Images(Drawable):
  """The images of a source at one size, each with a number.

  Args:
    source: its examples hold `image` uint8 [H, W, C].
    size: height and width wanted, in pixels.
    number: returns an example's number, such as its label or the row of its caption's embedding.
    cache: keep decoded images in memory, from `load` on or when the first is wanted, so that each is decoded
      once; not done where all sets of the process would take more than 8 GiB.
    rows: use only these examples, in this order; all if not given.
    interpolation: how they are brought to their size.
  """

  def __init__(
    self,
    source: Examples,
    size: int,
    number: Callable[[dict[str, Any]], int],
    cache: bool = True,
    rows: Sequence[int] | np.ndarray | None = None,
    interpolation: Interpolation = 'bilinear',
  ):
    self._source, self._size, self._number, self._interpolation = source, size, number, interpolation
    self._rows = range(len(source)) if rows is None else rows
    self._is_kept = cache and _memory.take(3 * size**2 * len(self._rows), self)
    self._kept: tuple[np.ndarray, np.ndarray] | None = None

  def __len__(self) -> int:
    return len(self._rows)

  @property
  def in_memory(self) -> bool:
    return self._is_kept

  def take(self, indices: np.ndarray, cuts: Cuts | None = None) -> tuple[np.ndarray, np.ndarray]:
    if cuts is not None:
      cut = functools.partial(self._cut, cuts.crop)
      return _stacked(_pool().map(cut, indices, cuts.generators), len(indices))
    self.load()
    if self._kept is None:
      return _stacked(_pool().map(self._whole, indices), len(indices))
    return self._kept[0][indices], self._kept[1][indices]

  def load(self) -> None:
    if self._is_kept and self._kept is None:
      self._kept = _stacked(_pool().map(self._whole, range(len(self))), len(self))

  def __getstate__(self) -> dict[str, Any]:
    # a worker process decodes what it needs
    return {**self.__dict__, '_is_kept': False, '_kept': None}

  @property
  def size(self) -> int:
    """Returns the height and width of the images."""
    return self._size

  def all(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns all images uint8 [N, size, size, C] and their numbers int32 [N]."""
    return self.take(np.arange(len(self)))

  def _whole(self, index: int) -> tuple[np.ndarray, int]:
    example = self._source[int(self._rows[index])]
    return resize(example['image'], self._size, self._interpolation), self._number(example)

  def _cut(self, crop: RandomResizedCrop, index: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    example = self._source.undecoded(int(self._rows[index]))
    return crop(example['image'], rng), self._number(example)


def _stacked(pairs: Iterable[tuple[np.ndarray, int]], num: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns `num` images uint8 [S, S, C] and numbers, given one by one, as arrays."""
  images, numbers = np.empty(0, np.uint8), np.empty(num, np.int32)
  for i, (image, number) in enumerate(pairs):
    if not i:
      images = np.empty((num, *image.shape), np.uint8)
    images[i], numbers[i] = image, number
  return images, numbers


@functools.cache
def _pool() -> ThreadPoolExecutor:
  """Returns the threads that read and decode: more than there are cores, as some wait for the disk.

  A worker process has a core's share.
  """
  return ThreadPoolExecutor(None if parent_process() is None else _WORKER_THREADS)


class Joined(Drawable):
  """Several `Images` of one size, one after the other, as if they were one.

  Args:
    parts: the images.
    weights: what an image of each part counts in the loss, the same for all if not given.
  """

  def __init__(self, parts: Sequence[Images], weights: Sequence[float] | None = None):
    self._parts = parts
    self._weights = None if weights is None else np.asarray(weights, np.float32)
    self._ends = np.cumsum([len(part) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def weights(self, indices: np.ndarray) -> np.ndarray | None:
    """Returns the weights of the parts that images are of: float32 [B]; None if there are none."""
    return None if self._weights is None else self._weights[self._which(indices)]

  @property
  def in_memory(self) -> bool:
    return all(part.in_memory for part in self._parts)

  def load(self) -> None:
    for part in self._parts:
      part.load()

  def take(self, indices: np.ndarray, cuts: Cuts | None = None) -> tuple[np.ndarray, np.ndarray]:
    which = self._which(indices)
    starts = np.concatenate([[0], self._ends[:-1]])
    pieces = []
    for i, part in enumerate(self._parts):
      rows = np.flatnonzero(which == i)
      if len(rows):
        pieces.append((rows, *part.take(indices[rows] - starts[i], cuts and cuts.of(rows))))
    image_shape = pieces[0][1].shape[1:]
    images, numbers = np.empty((len(indices), *image_shape), np.uint8), np.empty(len(indices), np.int32)
    for rows, some_images, some_numbers in pieces:
      images[rows], numbers[rows] = some_images, some_numbers
    return images, numbers

  def _which(self, indices: np.ndarray) -> np.ndarray:
    """Returns the number of the part that each image is of: int [B]."""
    return np.searchsorted(self._ends, indices, side='right')


class Blend(Joined):
  """Several `Images`, one after the other, of each of which every batch has a fixed share.

  Args:
    parts: the images; each part goes through random permutations of its own, at its own pace.
    counts: how many of each `sum(counts)` rows of a batch are of each part, those of the first part first.
    weights: what an image of each part counts in the loss, the same for all if not given.
  """

  def __init__(self, parts: Sequence[Images], counts: Sequence[int], weights: Sequence[float] | None = None):
    super().__init__(parts, weights)
    self._owners = np.repeat(np.arange(len(parts)), counts)

  def owners(self, rows: np.ndarray) -> np.ndarray:
    """Returns which part rows of a batch are of: int [B], for rows int [B]."""
    return self._owners[rows % len(self._owners)]

  @property
  def first_pass(self) -> Fraction:
    """Returns how many images are drawn until each of the first part has been, once."""
    return Fraction(len(self._parts[0]) * len(self._owners), int(np.sum(self._owners == 0)))

  def batch_indices(self, seed: int, step: int, batch_size: int, rows: np.ndarray) -> np.ndarray:
    """Returns the images of rows int [b] of the batch of `step`, which counts from 0: int [b]."""
    owners, indices = self.owners(np.arange(batch_size)), np.empty(len(rows), int)
    start = 0
    for i, part in enumerate(self._parts):
      # the place of each row among those of the part
      places = np.cumsum(owners == i) - 1
      mine = owners[rows] == i
      if mine.any():
        num = int(np.sum(owners == i))
        indices[mine] = start + batch_indices((seed, i), step, num, len(part), places[rows[mine]])
      start += len(part)
    return indices


def batches(
  images: Drawable,
  number_name: str,
  seed: int,
  batch_size: int,
  start: int,
  stop: int,
  rows: np.ndarray | None = None,
  augment: Callable[[np.ndarray, Draws], np.ndarray] | None = None,
  repeats: int = 1,
  crop: RandomResizedCrop | None = None,
  flip: bool = False,
) -> Iterator[Batch]:
  """Yields the batches of the steps from `start` to `stop` - 1.

  Where many images must be decoded, worker processes do all of it: see `made_by_workers`. Few, and those in
  memory, are faster without. The batches are the same.

  Args:
    images: what the batches are drawn from.
    number_name: the batch's name for the numbers of the images.
    seed: of the order of the examples, and of their augmentation.
    batch_size: images of a whole batch.
    start: the first step; steps count from 0.
    stop: the step after the last one.
    rows: int [b], the rows of each batch that are wanted, all if not given. A row is the same whichever
      others are wanted.
    augment: returns the images that are trained on, [b, h, w, C], given images uint8 [b, H, W, C] and
      random numbers for their rows.
    repeats: how often each image is in a batch, the last ones perhaps less often.
    crop: what is cut out of whole images before they are augmented, if it is given.
    flip: whether half of the images are to be mirrored, by those who train on them.

  Yields:
    {'image': [b, h, w, C], number_name: int32 [b]}, with 'weight' float32 [b] where images have weights, and
    'mirrored' bool [b], drawn last, with `flip`.
  """
  rows, steps = np.arange(batch_size) if rows is None else rows, range(start, stop)
  make = BatchMaker(images, number_name, seed, batch_size, augment, repeats, crop, flip)
  is_decoded = images.in_memory and crop is None
  if is_decoded or len(steps) * len(rows) < _WORTH_WORKERS:
    yield from (make(step, rows) for step in steps)
  else:
    yield from made_by_workers(make, steps, rows)


@dataclasses.dataclass(frozen=True)
class BatchMaker:
  """What makes any rows of the batch of any step: see `batches`."""

  images: Drawable
  number_name: str
  seed: int
  batch_size: int
  augment: Callable[[np.ndarray, Draws], np.ndarray] | None
  repeats: int
  crop: RandomResizedCrop | None = None
  flip: bool = False

  def __call__(self, step: int, rows: np.ndarray) -> Batch:
    """Returns rows of the batch of a step."""
    num_distinct = -(-self.batch_size // self.repeats)
    drawn = self.images.batch_indices(self.seed, step, num_distinct, rows % num_distinct)
    draws = Draws(np.random.default_rng((self.seed, step, 1)), rows, self.batch_size)
    cuts = None if self.crop is None else Cuts(self.crop, draws.generators())
    taken, numbers = self.images.take(drawn, cuts)
    if self.augment is not None:
      taken = self.augment(taken, draws)
    batch = {'image': taken, self.number_name: numbers}
    weights = self.images.weights(drawn)
    if weights is not None:
      batch['weight'] = weights
    if self.flip:
      batch['mirrored'] = draws.random() < 0.5
    return batch


class Ahead(Generic[T]):
  """An iterable whose elements are made in a thread, each while the one before it is used."""

  def __init__(self, elements: Iterable[T]):
    self._elements = iter(elements)
    self._num_made, self._seconds = 0, 0.0

  @property
  def per_second(self) -> float:
    """Returns how many elements the thread makes in a second of work; 0 before the first.

    The time that it waits for elements to be used does not count.
    """
    return self._num_made / self._seconds if self._num_made else 0.0

  def __iter__(self) -> Iterator[T]:
    with ThreadPoolExecutor(1) as thread:
      try:
        pending = thread.submit(self._make)
        while made := pending.result():
          pending = thread.submit(self._make)
          yield made[0]
      finally:
        if isinstance(self._elements, Generator):
          thread.submit(self._elements.close).result()

  def _make(self) -> tuple[T, ...]:
    """Returns the next element; an empty tuple at the end."""
    start = time.perf_counter()
    made = tuple(itertools.islice(self._elements, 1))
    if made:
      self._num_made, self._seconds = self._num_made + 1, self._seconds + time.perf_counter() - start
    return made
