"""Differences between classifiers, with their intervals, and how both are written."""

import dataclasses
from collections.abc import Iterable

from imagenet_synth.metrics.uncertainty import Difference

INTERVAL_NOTE = (
  'In brackets: the 95 % interval of the difference. Seeds and test images both vary in it; the images are '
  'the same for both classifiers, seeds are paired where both have the same.'
)
"""What intervals are; said once, below the first table that has them."""


@dataclasses.dataclass(frozen=True)
class Gain:
  """How much more of the test images a classifier gets right than another one."""

  # in percentage points
  points: float
  # the same with its interval, as a share; None if it is not known
  difference: Difference | None
  # why there is no interval
  why_not: str = ''

  def __str__(self) -> str:
    """Returns '+2.10 (+0.95 to +3.20)', or the difference alone."""
    text = f'{self.points:+.2f}'
    return text if self.difference is None else f'{text} ({self.interval()})'

  def interval(self, decimals: int = 2) -> str:
    """Returns '+0.95 to +3.20'; '' if it is not known."""
    if self.difference is None:
      return ''
    low, high = (100 * end for end in (self.difference.low, self.difference.high))
    return f'{low:+.{decimals}f} to {high:+.{decimals}f}'

  @property
  def verdict(self) -> str:
    """Returns whether it can be told from noise, in words."""
    if self.difference is None:
      return f'no interval, as {self.why_not}'
    return 'more than the noise' if self.difference.excludes_zero else 'a difference within the noise'


def gains_note(gains: Iterable[Gain]) -> str:
  """Returns what must be known of these differences: what their intervals are, why some have none."""
  gains = list(gains)
  known = [gain.difference for gain in gains if gain.difference]
  parts = [INTERVAL_NOTE] if known else []
  if not all(difference.seeds_vary for difference in known):
    parts.append('Of a classifier with one seed, the spread over seeds is not known, and counts as none.')
  parts += [f'No interval where {why}.' for why in dict.fromkeys(gain.why_not for gain in gains) if why]
  return ' '.join(parts)
