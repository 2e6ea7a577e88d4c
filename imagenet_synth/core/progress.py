"""What the user sees while it runs: done, total, rate and time left."""

import sys

import tqdm

from imagenet_synth.core.processes import is_first


def progress(total: int, what: str, unit: str = 'img', start: int = 0) -> tqdm.tqdm:
  """A bar on a terminal; elsewhere (a log file) the same line, now and then.

  Args:
    total: of `unit`, with what an earlier run did.
    what: shown in front.
    start: how much an earlier run did; it counts as done, not into the rate.
  """
  terminal = sys.stderr.isatty()
  # a bar within a bar is wiped when it ends; in a log file, lines only follow each other
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
  """A line to the user, above any bar; the same from all processes, so the first says it."""
  if is_first():
    tqdm.tqdm.write(message, file=sys.stderr)
