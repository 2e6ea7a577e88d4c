"""Things that one thread makes and another one takes, so that neither waits for the other."""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar('T')


class _Abandoned(Exception):
  """Raised in place of the next thing, where no more come because of an error of their maker."""


class Handover(Generic[T]):
  """Hands things, in order, to a function that takes them in a thread of its own.

  It is a context of whoever makes them. Where that ends, no more come; where it ends with an error, the
  function gets an exception in place of the next one, and has ended when the context does.

  Args:
    take: is called once with all things as they come. What it raises, `put` and `wait` raise.
    max_bytes: of the things that are waiting to be taken.
  """

  def __init__(self, take: Callable[[Iterator[T]], None], max_bytes: int):
    self._max_bytes = max_bytes
    # with their bytes; and the sum of these
    self._things: collections.deque[tuple[T, int]] = collections.deque()
    self._num_bytes = 0
    self._no_more, self._abandoned = False, False
    self._changed = threading.Condition()
    thread = ThreadPoolExecutor(1)
    self._done: Future[None] = thread.submit(self._run, take)
    thread.shutdown(wait=False)
    # who waits to put a thing learns then that nobody takes it
    self._done.add_done_callback(lambda _: self._notify())

  def __enter__(self) -> 'Handover[T]':
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    with self._changed:
      self._no_more, self._abandoned = True, error is not None
      self._changed.notify_all()
    if error is not None:
      wait([self._done])

  def put(self, thing: T, num_bytes: int) -> None:
    """Hands over the next thing, as soon as those that wait to be taken have no more than their bytes."""
    with self._changed:
      self._changed.wait_for(lambda: self._num_bytes <= self._max_bytes or self._done.done())
      self._things.append((thing, num_bytes))
      self._num_bytes += num_bytes
      self._changed.notify_all()
    if self._done.done():
      self._done.result()

  def wait(self) -> None:
    """Waits until all things were taken, and all was done with them; no more may come."""
    self._done.result()

  def _run(self, take: Callable[[Iterator[T]], None]) -> None:
    with contextlib.suppress(_Abandoned):
      take(self._taken())

  def _notify(self) -> None:
    with self._changed:
      self._changed.notify_all()

  def _taken(self) -> Iterator[T]:
    """Yields the things as they come."""
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._things or self._no_more)
        if self._abandoned:
          raise _Abandoned
        if not self._things:
          return
        thing, num_bytes = self._things.popleft()
        self._num_bytes -= num_bytes
        self._changed.notify_all()
      yield thing
