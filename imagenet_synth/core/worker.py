"""Work that several processes share without talking: each takes its own part of what is missing.

The cluster's scheduler says which one a process is (TPU pod worker, Kubernetes Indexed Job, SLURM
array) and restarts what dies.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from imagenet_synth.core.errors import InputError

T = TypeVar('T')


class Worker(NamedTuple):
  """Number `index` of `count` processes."""

  index: int = 0
  count: int = 1

  @classmethod
  def parse(cls, text: str) -> 'Worker':
    """'3/16' -> the fourth of 16.

    Raises:
      InputError: not of this form, or there is no such process.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if not match or not int(match[1]) < int(match[2]):
      raise InputError(f'--worker is {text!r}, must be INDEX/COUNT with INDEX from 0 to COUNT - 1')
    return cls(int(match[1]), int(match[2]))

  def part(self, items: Sequence[T]) -> Sequence[T]:
    """Every count-th item, from the index-th on."""
    return items[self.index :: self.count]


class Unfinished(Exception):
  """A process has done its part, but other processes haven't yet; the message says what is left."""
