"""Being told to stop, and keeping what was reached until then.

SIGTERM, which schedulers send before they take a machine, Ctrl-C and the end of the time that is given are
all one: `Stopped` is raised wherever the program is. Files are there whole or not at all, so that it may end
anywhere. A loop that can save something first listens (`StopSignal`), and ends when it has: `keeping` does
both for loops of one process, `train.loop` for training.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

SAVE_MINUTES = 10.0
"""Minutes between saves of what a job goes on from after a kill."""

# between two meetings of processes that train together, at which they hear that one was told to stop: half a
# minute is what a machine has that can be taken at any time
_MEETING_SECONDS = 5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TOLD = 'told to stop; the same command goes on from what is saved'


# asyncio, which Orbax uses, and others let a KeyboardInterrupt through where they keep other exceptions
class Stopped(KeyboardInterrupt):
  """Raised when the program was told to stop; the message says what is saved.

  Attributes:
    signal: the number of the signal that told it.
  """

  def __init__(self, message: str, number: int = signal.SIGTERM):
    super().__init__(message)
    self.signal = number


def stop_when_told(after_minutes: float | None = None) -> None:
  """Lets SIGTERM and Ctrl-C raise `Stopped`, and SIGTERM come after so many minutes, if they are given."""

  def stop(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    raise Stopped(_TOLD, number)

  def listen() -> None:
    for number in _SIGNALS:
      signal.signal(number, stop)

  def where_it_cannot_be_raised(unraisable: 'sys.UnraisableHookArgs') -> None:
    if isinstance(unraisable.exc_value, Stopped):
      listen()
      _send(unraisable.exc_value.signal, 0.1)
    else:
      hook(unraisable)

  listen()
  # Python drops what is raised while it collects garbage, for which JAX has a callback, or in a `__del__`
  hook, sys.unraisablehook = sys.unraisablehook, where_it_cannot_be_raised
  if after_minutes is not None:
    _send(signal.SIGTERM, 60 * after_minutes)


def _send(number: int, after_seconds: float) -> None:
  """Has this process get a signal in some seconds."""
  timer = threading.Timer(after_seconds, os.kill, (os.getpid(), number))
  timer.daemon = True
  timer.start()


def ignore_signals() -> None:
  """Lets whoever has been told to stop end in peace: schedulers may tell several times."""
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)


class StopSignal:
  """A context in which a signal raises nothing: `came` says that it came, and whoever asks ends in time.

  Behind it signals do what they did before; one that nobody has heeded raises `Stopped` there.
  """

  # the signal that came; SIGTERM until one has
  number: int = signal.SIGTERM
  # whether one came to this process
  came = False

  def __enter__(self) -> 'StopSignal':
    self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    if self.came and error is None:
      raise Stopped(_TOLD, self.number)

  def _hear(self, number: int, frame: FrameType | None) -> None:
    self.came, self.number = True, number


@contextlib.contextmanager
def keeping(
  save: Callable[[], None], what: str, minutes: float | None = None
) -> Iterator[Callable[[], None]]:
  """Yields a function to be called after each batch of a loop, which saves by the clock.

  It raises `Stopped` if this process was told to stop, having saved.

  Args:
    save: keeps what has been done, so that the same work goes on from there.
    what: names the work in the message of `Stopped`.
    minutes: between two saves; SAVE_MINUTES if not given.
  """
  seconds = 60 * (SAVE_MINUTES if minutes is None else minutes)
  saved = time.monotonic()

  def after_batch() -> None:
    nonlocal saved
    if not stop.came and time.monotonic() - saved < seconds:
      return
    save()
    saved = time.monotonic()
    if stop.came:
      raise Stopped(f'{what}: {_TOLD}', stop.number)

  with StopSignal() as stop:
    yield after_batch


class Due(NamedTuple):
  """What is to be done after a step of training, the same on all processes."""

  # the state is to be saved
  save: bool
  # and the run ends
  stop: bool


class SaveClock:
  """Says after which steps a state is to be saved: every so many minutes, or when a process is told to stop.

  All processes hear the same; the first one's clock counts. They meet at few steps: the next time where half
  of the time that is left will have passed, as fast as steps have been since the last time, and after at most
  twice as many steps; where there are several, every few seconds. A step is late by no more than that at
  which a pace that suddenly falls makes it. One process alone heeds a signal at once.

  Args:
    minutes: the time between saves; 0 for each step.
    step: the step that is reached when the clock starts.
    told: hears that this process is to stop.
  """

  def __init__(self, minutes: float, step: int, told: StopSignal):
    self._seconds, self._told = 60 * minutes, told
    self._saved = self._met = time.monotonic()
    self._met_at, self._meets_at = step, step + 1

  def due(self, step: int, results: Any) -> Due:
    """Returns what is to be done after `step`; every process must ask after each step.

    Args:
      step: the step that was begun last.
      results: arrays that it makes, which are waited for where processes meet: steps are begun before those
        in front of them have ended.
    """
    alone = jax.process_count() == 1
    if step < self._meets_at and not (alone and self._told.came):
      return Due(False, False)
    jax.block_until_ready(results)
    now, num_steps = time.monotonic(), step - self._met_at
    save, stop = now - self._saved >= self._seconds, self._told.came
    left = self._seconds if save else self._saved + self._seconds - now
    pace = max((now - self._met) / num_steps, 1e-9)
    wait = int(min(max(left / (2 * pace), 1), 2 * num_steps))
    if not alone:
      wait = min(wait, max(int(_MEETING_SECONDS / pace), 1))
      said = multihost_utils.process_allgather(np.array([save, wait, stop]))
      save, wait, stop = bool(said[0, 0]), int(said[0, 1]), bool(said[:, 2].any())
    if save:
      self._saved = now
    self._met, self._met_at, self._meets_at = now, step, step + wait
    return Due(save or stop, stop)
