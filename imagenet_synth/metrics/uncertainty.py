"""What figures allow to say: better than guessing, told apart from each other, or undecided."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_NUM_RESAMPLES = 2000
_SEED = 0
# standard errors that a figure must be away from another one, to be called different from it
_ERRORS = 2.0


def _standard_error(mean: float, std: float | None, num_test: int) -> float:
  """Returns the standard error of an accuracy in [0, 1], from the test images and the spread over seeds.

  A spread that is not known, with one seed, counts as none.
  """
  share = min(max(mean, 0.0), 1.0)
  return math.hypot(math.sqrt(share * (1 - share) / max(num_test, 1)), std or 0.0)


class Difference(NamedTuple):
  """How much more of the test images one classifier gets right than another one, in [-1, 1]."""

  # over all seeds and images
  mean: float
  # the ends of its 95 % interval
  low: float
  high: float
  # whether the interval has the spread over seeds in it; with one seed of either classifier, it is not known
  seeds_vary: bool

  @property
  def excludes_zero(self) -> bool:
    """Returns whether the difference can be told from noise."""
    return self.low > 0 or self.high < 0


def accuracy_difference(correct: np.ndarray, other: np.ndarray, same_seeds: bool) -> Difference:
  """Returns how much more a classifier gets right than another one, with the 95 % interval.

  The interval is about what training with other seeds, and testing on other images of the same kind, would
  give. Being right with seed s on image n, less the other's, d_sn, is taken as a sum of independent parts:

      d_sn = mean + a_s + b_n + e_sn,    Var(mean over S x N) = var_a / S + var_b / N + var_e / (S N).

  The two sources of noise are drawn apart, 2,000 times, with the same draws in each call.

  Images: the means over seeds, d_.n, are resampled with replacement, one draw for both classifiers. That
  gives the last two terms, as Var(d_.n) = var_b + var_e / S. Since d_.n has few values, at most
  (S + 1) (T + 1), a resample is drawn as how often each occurs, a multinomial: the same as drawing images, in
  time and memory that don't grow with N. Half an image more of each of the values 1 and -1 is drawn from, as
  Agresti & Min add it to counts ("Simple improved confidence intervals for comparing matched proportions",
  2005): few images, all of them alike, are no certainty.

  Seeds: a bootstrap over S values is too narrow by sqrt((S - 1) / S). Scaled by the inverse it is right in
  its variance, but takes the spread of S values for known: where seeds are most of the noise, it covers 88 %
  for S = 5, not 95. So the mean of a_s is drawn as sqrt(var_a / S) times Student's t with S - 1 degrees of
  freedom. Var(d_s.) / S estimates var_a / S + var_e / (S N), whose second term is taken off, as it is in the
  images' part (a bootstrap of rows and columns at once has it three times). Seeds that are not paired add a
  draw for each classifier.

  Args:
    correct: bool [S, N], whether the classifier of each seed is right on each test image.
    other: bool [T, N] of the other classifier, on the same images.
    same_seeds: whether row s of both has the same seed; then S = T, and rows are paired.
  """
  varying = varying_over_seeds(correct, other, same_seeds)
  if same_seeds:
    of_images = varying[0].mean(axis=0, dtype=np.float64)
  else:
    of_images = correct.mean(axis=0) - other.mean(axis=0)
  rng = np.random.default_rng(_SEED)
  of_draws, of_seeds = _image_noise(of_images, rng), np.zeros(_NUM_RESAMPLES)
  for right in varying:
    if len(right) > 1:
      deviation = math.sqrt(max(variance_of_seeds(right), 0.0))
      of_seeds += deviation * rng.standard_t(len(right) - 1, _NUM_RESAMPLES)
  # each draw of seeds with either sign: with two seeds the tails are so long that chance would show
  noise = np.concatenate([of_draws + of_seeds, of_draws - of_seeds])
  mean = float(of_images.mean())
  low, high = np.clip(mean + np.quantile(noise, (0.025, 0.975)), -1, 1)
  return Difference(mean, float(low), float(high), min(len(correct), len(other)) > 1)


def varying_over_seeds(correct: np.ndarray, other: np.ndarray, same_seeds: bool) -> list[np.ndarray]:
  """Returns what varies independently with the seed: float32 [S, N] each.

  It is the difference of two classifiers where they have the same seeds, and each of them otherwise; the
  arguments are those of `accuracy_difference`.
  """
  if same_seeds:
    return [correct.astype(np.float32) - other]
  return [correct.astype(np.float32), other.astype(np.float32)]


def _image_noise(of_images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns float64 [R], how far the means of resampled images are from the mean of all."""
  # sums over seeds are whole multiples of a fraction: rounding makes equal ones equal
  values, counts = np.unique(of_images.round(9), return_counts=True)
  values, counts = np.append(values, (-1, 1)), np.append(counts, (0.5, 0.5))
  shares = counts / counts.sum()
  num = len(of_images)
  return rng.multinomial(num, shares, _NUM_RESAMPLES) @ values / num - shares @ values


def variance_of_seeds(right: np.ndarray) -> float:
  """Returns the variance of the mean of float [S, N] that is due to seeds alone, var_a / S; 0 of one seed.

  The estimate is unbiased, so it may be below 0.
  """
  num_seeds, num_images = right.shape
  if num_seeds == 1:
    return 0.0
  of_seeds = right.mean(axis=1, dtype=np.float64)
  of_images = right.mean(axis=0, dtype=np.float64)
  # sum of the squares of what rows and columns don't explain, without an array of it
  squares = sum(float(np.square(row - of_images).sum()) for row in right)
  squares -= num_images * float(np.square(of_seeds - of_seeds.mean()).sum())
  of_both = squares / ((num_seeds - 1) * max(num_images - 1, 1))
  return (float(of_seeds.var(ddof=1)) - of_both / num_images) / num_seeds


def beats_guessing(mean: float, std: float | None, num_classes: int, num_test: int) -> bool:
  """Returns whether an accuracy in [0, 1] is above that of guessing by more than its own noise."""
  chance = 1 / num_classes
  of_chance = _standard_error(chance, None, num_test)
  return mean - chance > _ERRORS * max(_standard_error(mean, std, num_test), of_chance)


def undecided(losses: Sequence[float], noise: float | Sequence[float]) -> list[int]:
  """Returns the places of the values that cannot be told from the lowest one, itself among them.

  Args:
    losses: the lower the better.
    noise: how far two values may be apart by chance; or the noise of each, of which two add in squares.
  """
  best = min(range(len(losses)), key=lambda i: losses[i])

  def between(i: int) -> float:
    return noise if isinstance(noise, (int, float)) else math.hypot(noise[i], noise[best])

  return [i for i, loss in enumerate(losses) if i == best or loss - losses[best] < between(i)]


def share_interval(share: float, num: int) -> tuple[float, float]:
  """Returns the 95 % interval of a share of `num` images, both ends in [0, 1] (Wilson, 1927)."""
  z = 1.96
  middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
  half = z / (1 + z**2 / num) * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
  # of none and of all, one end is known; rounding would leave a share of 1e-17
  return max(middle - half, 0.0) if share else 0.0, min(middle + half, 1.0) if share < 1 else 1.0
