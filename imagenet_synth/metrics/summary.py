"""One number from several seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError


class MeanStd(NamedTuple):
  """std: sample standard deviation (ddof 1), None when a single run cannot tell; num: of runs."""

  mean: float
  std: float | None
  num: int


def mean_std(values: Sequence[float]) -> MeanStd:
  """Mean and spread of the same measurement repeated with other seeds."""
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values):
    raise InputError(f'mean_std needs a list of at least one number, got shape {values.shape}')
  std = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return MeanStd(float(np.mean(values)), std, len(values))
