"""Kernel distance between two sets of features; with Inception features it is KID.

Bińkowski et al., "Demystifying MMD GANs", 2018, section 4: the squared maximum mean discrepancy by an
unbiased estimate. Unlike the Fréchet distance, its mean does not depend on how many samples there are.
"""

from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError

# of the draws of the subsets
_SEED = 0


class KernelDistance(NamedTuple):
  """A distance that was estimated on many subsets."""

  # over the subsets; may be a little below 0, as the estimate is unbiased
  mean: float
  # of the subsets' estimates about their mean (ddof 0)
  std: float


def kernel_distance(
  real: np.ndarray, generated: np.ndarray, num_subsets: int = 100, subset_size: int = 1000
) -> KernelDistance:
  """Returns the distance, by default of 100 subsets of 1000 samples as is usual.

  Args:
    real: features [N, D] of any float type.
    generated: features [M, D].
    num_subsets: how many times a subset of each set is drawn, at random. If both sets have no more samples
      than a subset, they are compared once, whole.
    subset_size: samples of a subset; as many as the smaller set has, if it has fewer.

  Raises:
    InputError: a set has fewer than 2 samples.
  """
  size = min(subset_size, len(real), len(generated))
  if size < 2:
    raise InputError(f'a kernel distance needs at least 2 samples, got {len(real)} and {len(generated)}')
  rng = np.random.default_rng(_SEED)
  is_whole = size == len(real) == len(generated)
  estimates = []
  for _ in range(1 if is_whole else num_subsets):
    parts = (of[rng.choice(len(of), size, replace=False)].astype(np.float64) for of in (real, generated))
    estimates.append(_squared_discrepancy(*parts))
  return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)))


def _squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the unbiased estimate of the squared discrepancy between x and y, both [n, D] (equation 4)."""
  num = len(x)

  def mean_of_others(z: np.ndarray) -> float:
    kernel = _kernel(z, z)
    return (kernel.sum() - np.trace(kernel)) / (num * (num - 1))

  return float(mean_of_others(x) + mean_of_others(y) - 2 * _kernel(x, y).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns (x.y / D + 1)^3 of all pairs: float64 [N, M]."""
  return (x @ y.T / x.shape[1] + 1) ** 3
