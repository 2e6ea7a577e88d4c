"""Fréchet distance between two sets of features, from their streamed moments.

With Inception features this is FID (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium", 2017, eq. 6). Which network, which layer and which pixels
made the features is the caller's business; here are only numpy arrays in float64.
"""

import dataclasses
import functools
import zipfile

import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import open_local, write_arrays

# The width of Inception's pooled features: with fewer samples their covariance is singular.
MIN_SAMPLES = 2048
# features that are in memory as float64 at a time
_BLOCK_ROWS = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Mean and spread of the feature vectors seen so far."""

  # how many they are
  count: int
  # float64 [D]
  mean: np.ndarray
  # float64 [D, D], the sum of (x - mean)(x - mean)^T; about the running mean, since a sum of squares about
  # zero loses its digits when the mean is large
  scatter: np.ndarray

  @classmethod
  def zero(cls, num_features: int) -> 'Moments':
    """Returns the moments of no vector at all, which a stream starts from."""
    return cls(0, np.zeros(num_features), np.zeros((num_features, num_features)))

  @property
  def covariance(self) -> np.ndarray:
    """Returns the unbiased covariance (divided by count - 1): float64 [D, D].

    Raises:
      InputError: there are fewer than 2 vectors.
    """
    if self.count < 2:
      raise InputError(f'a covariance needs at least 2 samples, got {self.count}')
    return self.scatter / (self.count - 1)

  def save(self, path: epath.Path) -> None:
    """Writes an npz of mean `mu`, covariance `sigma` (the names in ADM's reference files) and `count`.

    The file appears under its name only when it is whole.

    Raises:
      InputError: there are fewer than 2 vectors.
    """
    write_arrays(path, mu=self.mean, sigma=self.covariance, count=np.int64(self.count))

  @classmethod
  def load(cls, path: epath.PathLike, count: int | None = None) -> 'Moments':
    """Returns what `save` wrote, or the moments of an ADM reference file, whose other arrays are ignored.

    Args:
      path: an npz of `mu` and `sigma`.
      count: number of samples behind a file that does not say, as ADM's do not; ignored if it does.

    Raises:
      InputError: it is no such file, or its number of samples is not known.
    """
    arrays = _read_npz(path)
    if not {'mu', 'sigma'} <= arrays.keys():
      raise InputError(f'{path} holds no mu and sigma, so it is not feature statistics')
    count = int(arrays.get('count', count or 0))
    if count < 2:
      raise InputError(f'{path} does not say how many samples it is from: pass count')
    mean = np.asarray(arrays['mu'], np.float64)
    covariance = np.asarray(arrays['sigma'], np.float64)
    if mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
      raise InputError(
        f'{path} has mu {mean.shape} and sigma {covariance.shape}, which should be [D] and [D, D]'
      )
    return cls(count, mean, covariance * (count - 1))


def _read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
  try:
    with open_local(path) as opened:
      # np.load takes a lone array too, and returns it as such
      if not zipfile.is_zipfile(opened):
        raise InputError(f'{path} is not an npz of feature statistics')
      opened.seek(0)
      with np.load(opened) as file:
        return {name: file[name] for name in ('mu', 'sigma', 'count') if name in file.files}
  except FileNotFoundError:
    raise InputError(f'{path} is missing') from None
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    raise InputError(f'{path} cannot be read as an npz of feature statistics: {error}') from error


def update(moments: Moments, features: np.ndarray) -> Moments:
  """Returns the moments of the vectors seen so far and of `features` [N, D], of any float type.

  Raises:
    InputError: the features are not finite or not [N, D].
  """
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or features.shape[1] != moments.mean.size:
    raise InputError(f'features have shape {features.shape}, expected [N, {moments.mean.size}]')
  if not np.isfinite(features).all():
    raise InputError('features contain NaN or infinity: check the images and the network weights')
  if not len(features):
    return moments
  mean = features.mean(axis=0)
  centered = features - mean
  return merge(moments, Moments(len(features), mean, centered.T @ centered))


def merge(a: Moments, b: Moments) -> Moments:
  """Returns the moments of both sets together, as when hosts have seen a part each.

  Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
  Variances", 1979, eq. 2.1, for vectors.

  Raises:
    InputError: their vectors are not of the same length.
  """
  if a.mean.size != b.mean.size:
    raise InputError(f'cannot merge moments of {a.mean.size} and {b.mean.size} features')
  count = a.count + b.count
  if not count:
    return a
  delta = b.mean - a.mean
  mean = a.mean + delta * (b.count / count)
  scatter = a.scatter + b.scatter + np.outer(delta, delta) * (a.count * b.count / count)
  return Moments(count, mean, scatter)


def without(whole: Moments, part: Moments) -> Moments:
  """Returns the moments of the other vectors of a set, the inverse of `merge`; `part` is half of it at most.

  A larger part would take away nearly all of the sums, and leave their rounding.
  """
  count = whole.count - part.count
  mean = whole.mean + (whole.mean - part.mean) * (part.count / count)
  delta = part.mean - mean
  scatter = whole.scatter - part.scatter - np.outer(delta, delta) * (count * part.count / whole.count)
  return Moments(count, mean, scatter)


def noise_floor(whole: Moments, drawn: np.ndarray, num: int) -> float | None:
  """Returns the distance that as many real samples would have to a real set, on average.

  The distance of samples of one distribution is not 0: to first order in 1 / size, its mean is
  c (1 / n + 1 / m) for sizes n and m. (Chong & Forsyth, "Effectively Unbiased FID and Inception Score and
  Where to Find Them", 2020, section 3: the bias of a set of n is proportional to 1 / n.) So a part of the set
  is compared with its rest, and what that gives is scaled to sizes `num` and N, the whole, by this formula.
  Where the set is large, the part has `num` samples, and the scale is near 1; otherwise the part is half.

  Args:
    whole: the moments of the real set.
    drawn: features [n, D] of some of its samples, in random order.
    num: size of the set whose distance to `whole` is wanted.

  Returns:
    The distance; None if the set is too small to be divided.
  """
  part = drawn[: min(num, whole.count // 2)]
  if len(part) < 2:
    return None
  moments = Moments.zero(whole.mean.size)
  for start in range(0, len(part), _BLOCK_ROWS):
    moments = update(moments, part[start : start + _BLOCK_ROWS])
  rest = without(whole, moments)
  scale = (1 / num + 1 / whole.count) / (1 / moments.count + 1 / rest.count)
  return scale * frechet_distance(moments, rest)


def frechet_distance(a: Moments, b: Moments) -> float:
  """Returns |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), the squared 2-Wasserstein distance.

  The eigenvalues of S_a S_b are those of the symmetric S_a^1/2 S_b S_a^1/2, hence the squares of
  the singular values of R_a^T R_b where S = R R^T. Taking these directly avoids both the square
  root of a non-symmetric matrix and the square root of eigenvalues that are rounding noise, so
  covariances of less than full rank lose no digits: an error of order D * 1e-16 * |S|, not 1e-8.

  Raises:
    InputError: the vectors of both are not of the same length, not finite, or fewer than 2.
  """
  if a.mean.size != b.mean.size:
    raise InputError(f'cannot compare moments of {a.mean.size} and {b.mean.size} features')
  trace_of_root = np.linalg.svd(_root(a).T @ _root(b), compute_uv=False).sum()
  delta = a.mean - b.mean
  distance = delta @ delta + np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
  return float(max(distance, 0.0))


# each reference is compared with many sets
@functools.lru_cache(maxsize=4)
def _root(moments: Moments) -> np.ndarray:
  """Returns R [D, D] with R R^T = covariance; eigenvalues below zero are rounding and count as zero."""
  covariance = moments.covariance
  if not np.isfinite(covariance).all() or not np.isfinite(moments.mean).all():
    raise InputError('feature statistics contain NaN or infinity')
  values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
  return vectors * np.sqrt(np.maximum(values, 0))


def sample_warning(count: int) -> str | None:
  """Returns what must be said with a result from fewer than MIN_SAMPLES samples, else None."""
  if count >= MIN_SAMPLES:
    return None
  return (
    f'computed from {count} samples, fewer than {MIN_SAMPLES}: biased upwards, comparable '
    f'only with values from {count} samples too'
  )
