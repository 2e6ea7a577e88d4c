"""What the user sees while a job runs: how much is done, of how much, how fast, and the time left.

The same is kept in a file now and then, from which `status` tells it to whoever asks.
"""

import contextlib
import functools
import io
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import tqdm
from etils import epath

from imagenet_synth.core.files import make_folder, write_json
from imagenet_synth.core.processes import is_first

SECONDS_BETWEEN_STATES = 10
"""The time between two states of a bar that are kept."""

SECONDS_BETWEEN_LINES = 60
"""The time between two lines of a bar where there is no terminal."""

_LINE = '{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]'

# where the states of this process's bars are kept; none while no job runs
_state_paths: list[epath.Path] = []


@contextlib.contextmanager
def keeping_state(path: epath.Path) -> Iterator[None]:
  """Keeps the state of the bars that are shown within in a file, which is deleted if all goes well."""
  make_folder(path.parent)
  _state_paths.append(path)
  try:
    yield
  finally:
    _state_paths.pop()
  path.unlink(missing_ok=True)


class _Bar(tqdm.tqdm):
  """A bar whose state is kept in a file: what, done, total, unit, rate (per second, or None), time."""

  # when the state was kept last
  _kept = -math.inf

  def display(self, *args: Any, **kwargs: Any) -> Any:
    """Shows the bar."""
    shown = super().display(*args, **kwargs)
    self._keep_state()
    return shown

  def _keep_state(self) -> None:
    now = time.monotonic()
    if _state_paths and now - self._kept >= SECONDS_BETWEEN_STATES:
      self._kept = now
      state = dict(what=self.desc, done=self.n, total=self.total, unit=self.unit, time=time.time())
      # one that cannot be written is not worth stopping for
      with contextlib.suppress(OSError):
        write_json(_state_paths[-1], state | {'rate': self.format_dict['rate']})


class _Lines(_Bar):
  """What is a bar on a terminal, for a log file: a line of its own each minute, the first and the last."""

  # when the last line was written
  _written = -math.inf

  def display(self, *args: Any, **kwargs: Any) -> Any:
    """Writes a line if it is time to, which is asked each few seconds."""
    self._keep_state()
    if time.monotonic() - self._written >= SECONDS_BETWEEN_LINES:
      self._written = time.monotonic()
      print(self, file=sys.stderr, flush=True)

  def close(self) -> None:
    """Writes the last line."""
    self._written = -math.inf
    super().close()


def progress(total: int, what: str, unit: str = 'img', start: int = 0) -> tqdm.tqdm:
  """Returns a progress bar; where there is no terminal (a log file), it is a line each minute.

  Args:
    total: how much is to be done, with what an earlier run did.
    what: the text in front of the bar.
    unit: what is counted.
    start: how much an earlier run did; it counts as done, but not into the rate.
  """
  terminal = sys.stderr.isatty()
  return (_Bar if terminal else _Lines)(
    total=total,
    desc=what,
    unit=unit,
    initial=start,
    # lines are printed; what tqdm writes around them goes nowhere
    file=sys.stderr if terminal else io.StringIO(),
    mininterval=0.5 if terminal else SECONDS_BETWEEN_STATES,
    maxinterval=SECONDS_BETWEEN_STATES,
    bar_format=None if terminal else _LINE,
    disable=not is_first(),
    # on a terminal, a bar within a bar is wiped when it ends
    leave=None,
    position=None if terminal else 0,
    dynamic_ncols=terminal,
    smoothing=0.1,
  )


def say(message: str) -> None:
  """Writes a line to the user, above any bar. Only the first process does: the others would say the same."""
  if is_first():
    tqdm.tqdm.write(message, file=sys.stderr)


@functools.cache
def say_once(message: str) -> None:
  """Writes a line to the user, if this process has not written the same before."""
  say(message)
