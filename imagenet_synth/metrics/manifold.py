"""How far generated images are like real ones, and the other way round, by nearest neighbours of features.

Precision and recall: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative
Models", 2019. Density and coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative
Models", 2020. All are made of balls around samples, each as wide as to its k-th nearest neighbour in the same
set.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError

# samples whose distances to all of a set are in memory at a time
_BLOCK_ROWS = 256


class Similarity(NamedTuple):
  """Shares are in [0, 1]; the density is not below 0, and 1 on average for samples like the real ones."""

  # share of the generated samples that are in a ball of a real one (2019, equation 2)
  precision: float
  # share of the real samples that are in a ball of a generated one
  recall: float
  # how many real balls a generated sample is in, on average, over k (2020, equation 3)
  density: float
  # share of the real samples with a generated one in their ball (2020, equation 4)
  coverage: float


def similarity(real: np.ndarray, generated: np.ndarray, k: int = 3, k_density: int = 5) -> Similarity:
  """Returns all four figures; memory is that of a block of distances, whatever the number of samples.

  Args:
    real: features [N, D].
    generated: features [M, D]. M should be N if the numbers are to be compared with others.
    k: of the nearest neighbour that is on a ball's surface, for precision and recall.
    k_density: the same for density and coverage.

  Raises:
    InputError: a set has no more samples than neighbours are needed.
  """
  largest = max(k, k_density)
  for name, features in (('real', real), ('generated', generated)):
    if len(features) <= largest:
      raise InputError(
        f'neighbours up to the {largest}th need more than {largest} {name} samples, got {len(features)}'
      )
  real_radii, density_radii = _squared_radii(real, (k, k_density))
  (generated_radii,) = _squared_radii(generated, (k,))
  num_precise, num_inside = 0, 0
  is_recalled, is_covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
  start = 0
  for block in _squared_distances(generated, real):
    inside = block <= density_radii[None]
    num_precise += np.any(block <= real_radii[None], axis=1).sum()
    num_inside += inside.sum()
    is_recalled |= np.any(block <= generated_radii[start : start + len(block), None], axis=0)
    is_covered |= inside.any(axis=0)
    start += len(block)
  return Similarity(
    float(num_precise / len(generated)),
    float(is_recalled.mean()),
    float(num_inside / (k_density * len(generated))),
    float(is_covered.mean()),
  )


def _squared_radii(features: np.ndarray, neighbours: tuple[int, ...]) -> np.ndarray:
  """Returns the squared distances from each sample to its k-th nearest other, for each k: float64 [ks, N]."""
  # the nearest of all is the sample itself
  blocks = [
    np.partition(block, neighbours, axis=1)[:, neighbours] for block in _squared_distances(features, features)
  ]
  return np.concatenate(blocks).T


def _squared_distances(queries: np.ndarray, centers: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the squared distances from a block of queries to all centers: float64 [rows, M].

  Nothing is below 0, as rounding would have it of the distance from a sample to itself.
  """
  centers = np.asarray(centers, np.float64)
  norms = np.sum(centers**2, axis=1)
  for start in range(0, len(queries), _BLOCK_ROWS):
    block = np.asarray(queries[start : start + _BLOCK_ROWS], np.float64)
    yield np.maximum(np.sum(block**2, axis=1)[:, None] + norms[None] - 2 * block @ centers.T, 0)
