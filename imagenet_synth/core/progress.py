"""What the user sees while a job runs: how much is done, of how much, how fast, and the time left."""

import functools
import sys

import tqdm

from imagenet_synth.core.processes import is_first


def progress(total: int, what: str, unit: str = 'img', start: int = 0) -> tqdm.tqdm:
  """Returns a progress bar; where there is no terminal (a log file), it is a line now and then.

  Args:
    total: how much is to be done, with what an earlier run did.
    what: the text in front of the bar.
    unit: what is counted.
    start: how much an earlier run did; it counts as done, but not into the rate.
  """
  terminal = sys.stderr.isatty()
  # on a terminal, a bar within a bar is wiped when it ends; in a log file, lines only follow each other
  return tqdm.tqdm(
    total=total,
    desc=what,
    unit=unit,
    initial=start,
    file=sys.stderr,
    mininterval=0.5 if terminal else 10,
    maxinterval=10 if terminal else 60,
    ascii=not terminal,
    disable=not is_first(),
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
