"""Rows of arrays that are made one after the other, kept by the clock until what is made of them is there.

    FOLDER/START-STOP.npz   some rows of each array

So whoever makes them goes on behind the last that is kept. Nothing is appended to a file: in a bucket it
cannot be, and two processes that by accident do the same write the same files.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.core.files import delete_tree, matching, read_arrays, write_arrays
from imagenet_synth.core.stopping import keeping

MAX_BYTES = 2**26
"""The most that rows take in memory until they are written; with those that are being written, four times."""


class KeptRows:
  """The rows in a folder, and those that will be: see `keeping_rows`."""

  def __init__(self, path: epath.Path):
    self._path = path
    self._files = list(_in_a_row(path))
    # rows that are not written yet, and their bytes
    self._held: list[Mapping[str, np.ndarray]] = []
    self._num_bytes = 0
    # rows that are being written
    self._writing: Future[None] | None = None
    self._seconds_waited = 0.0
    # rows that there are, with those that are not written
    self.num = self._files[-1][1] if self._files else 0
    self._parts: list[KeptRows] = []
    self.after_batch: Callable[[], None] = lambda: None

  @property
  def seconds_waited(self) -> float:
    """Returns how long those that add rows have waited for the disk."""
    return self._seconds_waited + sum(part.seconds_waited for part in self._parts)

  def within(self, name: str) -> 'KeptRows':
    """Returns other rows, in a folder within this one, that are written and deleted with these."""
    part = KeptRows(self._path / name)
    part.after_batch = self.after_batch
    self._parts.append(part)
    return part

  def read(self) -> Iterator[dict[str, np.ndarray]]:
    """Yields the rows that an earlier run has kept, in order, as arrays [n, ...] by name.

    Raises:
      InputError: a file is damaged; the message names it.
    """
    for start, stop in self._files:
      yield read_arrays(self._file(start, stop))

  def add(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Takes the next rows, the same number [n, ...] of each array, and writes what is held if it is due.

    Where they are due because they take too much memory, they are written behind the caller.

    Raises:
      Stopped: the program was told to stop; all rows are kept.
    """
    self._held.append(arrays)
    self.num += len(next(iter(arrays.values())))
    self._num_bytes += sum(array.nbytes for array in arrays.values())
    if self._num_bytes > MAX_BYTES:
      self._begin_writing()
    self.after_batch()

  def write(self) -> None:
    """Writes all rows that are held, and waits until they are written."""
    if self._held:
      self._begin_writing()
    self._end_writing()
    for part in self._parts:
      part.write()

  def wait(self) -> None:
    """Waits until what is being written is there."""
    self._end_writing()
    for part in self._parts:
      part.wait()

  def _begin_writing(self) -> None:
    """Lets the rows that are held be written; there is memory for no more than one such file at a time."""
    self._end_writing()
    held, self._held, self._num_bytes = self._held, [], 0
    start = self.num - sum(len(next(iter(arrays.values()))) for arrays in held)
    self._writing = _writer().submit(_write, self._file(start, self.num), held)

  def _end_writing(self) -> None:
    """Waits for the rows that are being written; raises what has kept them from that."""
    writing, self._writing = self._writing, None
    if writing is not None:
      begun = time.perf_counter()
      writing.result()
      self._seconds_waited += time.perf_counter() - begun

  def delete(self) -> None:
    """Deletes all rows, when what is made of them is there."""
    delete_tree(self._path)

  def _file(self, start: int, stop: int) -> epath.Path:
    return self._path / f'{start:09d}-{stop:09d}.npz'


@functools.cache
def _writer() -> ThreadPoolExecutor:
  """Returns the thread that writes rows."""
  return ThreadPoolExecutor(1)


def _write(path: epath.Path, held: list[Mapping[str, np.ndarray]]) -> None:
  """Writes a file of rows; the list is empty then, so that rows are not in memory twice."""
  joined: dict[str, Any] = {name: np.concatenate([arrays[name] for arrays in held]) for name in held[0]}
  held.clear()
  write_arrays(path, **joined)


@contextlib.contextmanager
def keeping_rows(path: epath.Path, what: str) -> Iterator[KeptRows]:
  """Gives the rows that are kept in a folder; whoever has done with them what is to be done deletes them.

  Within, SIGTERM and Ctrl-C wait for the next `KeptRows.add`.

  Args:
    path: the folder; it need not be there.
    what: names the rows where the program is told to stop, such as 'generate: train-00003-of-00010'.
  """
  rows = KeptRows(path)
  with keeping(rows.write, what) as rows.after_batch:
    try:
      yield rows
    finally:
      rows.wait()


def _in_a_row(path: epath.Path) -> Iterator[tuple[int, int]]:
  """Yields start and stop of the files in a folder, each of which begins where the one before it ends."""
  found: dict[int, int] = {}
  for file in matching(path, '?????????-?????????.npz'):
    start, stop = map(int, file.stem.split('-'))
    found[start] = max(stop, found.get(start, 0))
  start = 0
  while start in found:
    yield start, found[start]
    start = found[start]
