"""Precision and recall of generated images by the k-nearest-neighbour estimate of a manifold.

Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError

_BLOCK_ROWS = 1024


class PrecisionRecall(NamedTuple):
  """How far the generated samples are like the real ones, and the other way round; in [0, 1]."""

  # share of the generated samples that are within the manifold of the real ones
  precision: float
  # share of the real samples that are within the manifold of the generated ones
  recall: float


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> PrecisionRecall:
  """Returns the share of each set that is within the other's manifold (equations 1 and 2).

  A manifold is the union of balls around its samples, each as wide as to its k-th nearest neighbour in
  the same set.

  Args:
    real: features [N, D].
    generated: features [M, D]. M should be N if the numbers are to be compared with others.
    k: of the nearest neighbour that is on a ball's surface.

  Raises:
    InputError: a set has k samples or fewer.
  """
  for name, features in (('real', real), ('generated', generated)):
    if len(features) <= k:
      raise InputError(
        f'precision and recall with k = {k} need more than {k} {name} samples, got {len(features)}'
      )
  return PrecisionRecall(_share_within(generated, real, k), _share_within(real, generated, k))


def _share_within(queries: np.ndarray, centers: np.ndarray, k: int) -> float:
  radii = np.concatenate(
    [np.partition(block, k, axis=1)[:, k] for block in _squared_distances(centers, centers)]
  )
  inside = [np.any(block <= radii[None], axis=1) for block in _squared_distances(queries, centers)]
  return float(np.mean(np.concatenate(inside)))


def _squared_distances(queries: np.ndarray, centers: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the squared distances from a block of queries to all centers: float64 [rows, M].

  Nothing is below 0, as rounding would have it of the distance from a sample to itself.
  """
  centers = np.asarray(centers, np.float64)
  norms = np.sum(centers**2, axis=1)
  for start in range(0, len(queries), _BLOCK_ROWS):
    block = np.asarray(queries[start : start + _BLOCK_ROWS], np.float64)
    yield np.maximum(np.sum(block**2, axis=1)[:, None] + norms[None] - 2 * block @ centers.T, 0)
