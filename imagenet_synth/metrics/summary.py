"""One number from several seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError


class MeanStd(NamedTuple):
  """Mean and spread of a measurement over runs."""

  mean: float
  # sample standard deviation (ddof 1); None of a single run, which cannot tell
  std: float | None
  # of runs
  num: int


def mean_std(values: Sequence[float]) -> MeanStd:
  """Returns mean and spread of the same measurement repeated with other seeds.

  Raises:
    InputError: there are no values, or they are no list of numbers.
  """
  array = np.asarray(values, np.float64)
  if array.ndim != 1 or not len(array):
    raise InputError(f'mean_std needs a list of at least one number, got shape {array.shape}')
  std = float(np.std(array, ddof=1)) if len(array) > 1 else None
  return MeanStd(float(np.mean(array)), std, len(array))
