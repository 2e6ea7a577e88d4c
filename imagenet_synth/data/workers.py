"""Batches that worker processes make: threads of one process decode little over 1,000 images a second.

Python's lock is why, whatever the number of cores. Grain starts the processes, and hands over what they make
in shared memory. A batch is made of pieces, so that all work on the same one, and is what it would be else.
"""

import math
import os
import pickle
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from absl import flags

from imagenet_synth.core.progress import say_once

Batch = dict[str, np.ndarray]
"""Batch by name, which have a row for each example."""

# rows of a piece: fewer are not worth handing over, more would leave workers idle at the end of a batch
_FEWEST_ROWS, _MOST_ROWS = 8, 64
_SHARED_MEMORY = '/dev/shm'
# of a worker
_attached: list[SharedMemory] = []


class _Shared:
  """A function whose arrays worker processes read where they are, in shared memory.

  What says where 12 million records are takes 100 MB, which each worker would have a copy of.
  """

  def __init__(self, function: Callable[..., Any]):
    import cloudpickle

    self._function = function
    buffers: list[pickle.PickleBuffer] = []
    self._pickled = cloudpickle.dumps(function, 5, buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if sum(view.nbytes for view in views) > _num_free() / 2:
      self._pickled, views = cloudpickle.dumps(function, 5), []
    self._ends = np.cumsum([view.nbytes for view in views], dtype=np.int64).tolist()
    self._memory = SharedMemory(create=True, size=max(self._ends, default=1))
    assert self._memory.buf is not None
    for view, end in zip(views, self._ends):
      self._memory.buf[end - view.nbytes : end] = view

  def __getstate__(self) -> tuple[bytes, list[int], str]:
    return self._pickled, self._ends, self._memory.name

  def __setstate__(self, state: tuple[bytes, list[int], str]) -> None:
    self._pickled, self._ends, name = state
    self._memory = SharedMemory(name)
    # it is there as long as the worker, as the arrays are
    _attached.append(self._memory)
    assert self._memory.buf is not None
    whole = self._memory.buf.toreadonly()
    views = [whole[start:end] for start, end in zip([0, *self._ends], self._ends)]
    self._function = pickle.loads(self._pickled, buffers=views)

  def __call__(self, *args: Any) -> Any:
    return self._function(*args)

  def free(self) -> None:
    """Lets the memory go when the last worker has ended."""
    self._memory.close()
    self._memory.unlink()


class _Pieces:
  """The pieces of batches, in order: what Grain lets each worker make some of.

  Args:
    make: returns rows of a batch: see `made_by_workers`.
    steps: of the batches.
    rows: int [b], the rows of each batch that are wanted.
    size: rows of a piece; the last one of a batch may have fewer.
  """

  def __init__(self, make: Callable[[int, np.ndarray], Batch], steps: range, rows: np.ndarray, size: int):
    self._make, self._steps, self._rows, self._size = make, steps, rows, size
    self.of_batch = -(-len(rows) // size)

  def __len__(self) -> int:
    return len(self._steps) * self.of_batch

  def __getitem__(self, index: int) -> Batch:
    batch, piece = divmod(index, self.of_batch)
    return self._make(self._steps[batch], self._rows[piece * self._size : (piece + 1) * self._size])


def made_by_workers(
  make: Callable[[int, np.ndarray], Batch], steps: range, rows: np.ndarray, num_workers: int | None = None
) -> Iterator[Batch]:
  """Yields the batches of some steps, of which worker processes make one to two ahead.

  The workers end when the iterator is closed and when this process ends, however it does. Signals they
  ignore.

  Args:
    make: returns rows int [n] of the batch of a step, as arrays whose first dimension is n. What it raises is
      raised here.
    steps: of the batches.
    rows: int [b], the rows of each batch that are wanted.
    num_workers: how many processes there are; as many as this one has cores, if not given.
  """
  num_workers = num_cores() if num_workers is None else num_workers
  size = int(np.clip(-(-len(rows) // num_workers), _FEWEST_ROWS, _MOST_ROWS))
  row = make(steps[0], rows[:1])
  shared = _Shared(make)
  pieces = _Pieces(shared, steps, rows, size)
  ahead = _num_ahead(size * sum(array.nbytes for array in row.values()), pieces.of_batch, num_workers)
  if not ahead:
    shared.free()
    yield from (make(step, rows) for step in steps)
    return
  # only now: it takes a second, and few commands train
  import grain

  if not flags.FLAGS.is_parsed():
    # it has some of its own, and this is no program that was started with flags
    flags.FLAGS.mark_as_parsed()
  stream = iter(
    grain.MapDataset.source(pieces)
    # a worker makes its pieces one after the other
    .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    .mp_prefetch(grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=ahead), _begin)
  )
  try:
    for _ in steps:
      batch = {name: np.empty((len(rows), *array.shape[1:]), array.dtype) for name, array in row.items()}
      for start in range(0, len(rows), size):
        # copied, as the shared memory is freed with the piece
        for name, array in next(stream).items():
          batch[name][start : start + size] = array
      yield batch
    # Grain lets go of the last pieces when it is asked for more
    next(stream, None)
  finally:
    stream.close()
    shared.free()


def num_cores() -> int:
  """Returns how many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _num_ahead(piece_bytes: int, of_batch: int, num_workers: int) -> int:
  """Returns how many pieces each worker makes ahead: a batch together, where that fits; 0 if none does."""
  wanted, free = max(-(-of_batch // num_workers), 2), _num_free()
  # as many again have been fetched and not been used, and one is being made
  fit = int(min((free / (2 * num_workers * piece_bytes) - 1) / 2, wanted))
  if fit < 1:
    needed = 2 * num_workers * 3 * piece_bytes
    say_once(
      f'{_SHARED_MEMORY} has {free / 2**20:,.0f} MiB left; worker processes hand over images there if it has '
      f'{needed / 2**20:,.0f}. Threads decode them instead, which is slower'
    )
  return max(fit, 0)


def _num_free() -> float:
  """Returns how many bytes can still be shared: often half of memory, but 64 MiB in some containers."""
  return shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else math.inf


def _begin(index: int, num_workers: int) -> None:
  """Prepares a worker: it ends with the process that it works for, not by what a terminal sends to all."""
  del index, num_workers
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = parent_process()
  assert parent is not None
  parent.join()
  os._exit(1)
