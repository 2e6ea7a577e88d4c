"""Dividing a job among processes that don't talk: each takes its own part of what is missing.

The cluster's scheduler says which one a process is (TPU pod worker, Kubernetes Indexed Job, SLURM
array) and restarts what dies.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from imagenet_synth.core.errors import InputError

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Worker:
  """One of the processes that divide a job."""

  # which of them it is, from 0
  index: int = 0
  # how many there are
  count: int = 1

  @classmethod
  def parse(cls, text: str) -> 'Worker':
    """Returns the worker that 'INDEX/COUNT' names: '3/16' is the fourth of 16.

    Raises:
      InputError: the text is not of this form, or there is no such process.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if not match or not int(match[1]) < int(match[2]):
      raise InputError(f'--worker is {text!r}, must be INDEX/COUNT with INDEX from 0 to COUNT - 1')
    return cls(int(match[1]), int(match[2]))

  def part(self, items: Sequence[T]) -> Sequence[T]:
    """Returns this worker's items: every count-th, from number `index` on."""
    return items[self.index :: self.count]

  def require_all(self, job: str, items: Sequence[T], is_done: Callable[[T], bool], what: str) -> None:
    """Returns if all items of a job are done.

    Args:
      job: its name, for the message.
      items: what is divided.
      is_done: whether an item is done.
      what: the plural that items go by in the message.

    Raises:
      Unfinished: the other workers have not done theirs yet.
    """
    num_missing = sum(not is_done(item) for item in items)
    if num_missing:
      raise Unfinished(
        f'{job}: worker {self.index} of {self.count} has made its part; {num_missing} of {len(items)} {what} '
        'are left to the others'
      )


class Unfinished(Exception):
  """Raised when a process has done its part, but others haven't yet; the message says what is left."""
