"""Dividing a job among processes: each takes its own part of what is missing.

Workers don't talk. The cluster's scheduler says which one a process is (TPU pod worker, Kubernetes Indexed
Job, SLURM array) and restarts what dies; the one that finds all parts there ends the job. Processes that have
joined each other divide a job, too, but wait for each other, and the first one ends it.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import Missing, comes_to_be, is_first, wait_for_all

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Worker:
  """One of the processes that divide a job."""

  # which of them it is, from 0
  index: int = 0
  # how many there are
  count: int = 1
  # whether they have joined each other
  joined: bool = False

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

  def takes_on(self, items: Sequence[T]) -> Sequence[T]:
    """Returns the items that it does, or has a share in: its part; joined processes do each one together."""
    return items if self.joined else self.part(items)

  @property
  def within(self) -> 'Worker':
    """Returns how an item that it takes on is divided: among joined processes, or not at all."""
    return self if self.joined else Worker()

  def in_turn(self, items: Sequence[T]) -> Sequence[T]:
    """Returns what it has to make, in this order, where all must be there before anybody goes on.

    Its part comes first, then what the others may have made meanwhile. Joined processes wait for the others'.
    """
    mine = self.part(items)
    return mine if self.joined else [*mine, *(item for item in items if item not in mine)]

  def require_all(self, job: str, are_done: Callable[[], Sequence[bool]], what: str) -> None:
    """Returns if all parts of a job are done; joined processes, all of which must call it, wait until then.

    Args:
      job: its name, for the message.
      are_done: looks which items are done, of all that are divided.
      what: the plural that items go by in the message.

    Raises:
      Unfinished: the other workers have not done theirs yet.
    """
    wait_for_all(f'{job}: {what}')
    self._require(job, are_done, what)

  def end(self, job: str, are_done: Callable[[], Sequence[bool]], what: str) -> None:
    """Returns if all parts of a job are done, and this process is to end it: of joined ones, the first.

    Raises:
      Unfinished: others have not done theirs yet, or the first process ends the job.
    """
    wait_for_all(f'{job}: {what}')
    if not is_first():
      raise Unfinished(f'{job}: the first process ends it')
    self._require(job, are_done, what)

  def _require(self, job: str, are_done: Callable[[], Sequence[bool]], what: str) -> None:
    done: Sequence[bool] = ()

    def all_are_done() -> bool:
      nonlocal done
      done = are_done()
      return all(done)

    if comes_to_be(all_are_done):
      return
    num_missing = len(done) - sum(done)
    if self.joined:
      raise Missing(f'{job}: {num_missing} of {len(done)} {what} are not there, though all were made')
    raise Unfinished(
      f'{job}: worker {self.index} of {self.count} has made its part; {num_missing} of {len(done)} {what} '
      'are left to the others'
    )


class Unfinished(Exception):
  """Raised when a process has done its part, and others are to do the rest; the message says what."""
