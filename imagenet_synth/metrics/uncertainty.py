"""What figures allow to say: better than guessing, told apart from each other, or undecided."""

import math
from collections.abc import Sequence

# standard errors that a figure must be away from another one, to be called different from it
_ERRORS = 2.0


def standard_error(mean: float, std: float | None, num_test: int) -> float:
  """Returns the standard error of an accuracy in [0, 1], from the test images and the spread over seeds.

  A spread that is not known, with one seed, counts as none.
  """
  share = min(max(mean, 0.0), 1.0)
  return math.hypot(math.sqrt(share * (1 - share) / max(num_test, 1)), std or 0.0)


def beats_guessing(mean: float, std: float | None, num_classes: int, num_test: int) -> bool:
  """Returns whether an accuracy in [0, 1] is above that of guessing by more than its own noise."""
  chance = 1 / num_classes
  of_chance = standard_error(chance, None, num_test)
  return mean - chance > _ERRORS * max(standard_error(mean, std, num_test), of_chance)


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
  return max(middle - half, 0.0), min(middle + half, 1.0)
