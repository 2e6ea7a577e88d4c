"""What the classifiers of a job have said of each test image, kept beside the metrics of each run."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.files import read_arrays, write_arrays
from imagenet_synth.metrics.uncertainty import Difference, accuracy_difference

_FILE = 'predictions.npz'


class Predictions(NamedTuple):
  """The classes that a classifier takes the test images to be of."""

  # of the runs; S of them
  seeds: tuple[int, ...]
  # int [S, N], a row for each seed
  predicted: np.ndarray
  # int [N], the class that each image is of
  labels: np.ndarray

  def difference(self, other: 'Predictions', label: int | None = None) -> Difference:
    """Returns how much more is right than of `other`, of the same images; of those of a class, if given.

    Seeds are paired where both have the same ones, in whatever order.
    """
    images = slice(None) if label is None else self.labels == label
    same_seeds = sorted(self.seeds) == sorted(other.seeds)
    return accuracy_difference(self._correct()[:, images], other._correct()[:, images], same_seeds)

  def _correct(self) -> np.ndarray:
    """Returns bool [S, N], whether an image is taken for what it is; in the order of the seeds' numbers."""
    return self.predicted[np.argsort(self.seeds)] == self.labels


def save_predictions(path: pathlib.Path, logits: np.ndarray, labels: np.ndarray) -> None:
  """Keeps in a run's folder what logits [N, K] take each image for, and the labels, int [N]."""
  small = np.min_scalar_type(logits.shape[1] - 1)
  write_arrays(path / _FILE, predicted=logits.argmax(axis=1).astype(small), label=labels.astype(small))


def load_predictions(runs: Mapping[int, pathlib.Path]) -> Predictions | None:
  """Returns what was kept in the folders of runs, by their seeds; None if that of one is not there.

  Raises:
    InputError: a file cannot be read.
  """
  if not runs or not all((path / _FILE).exists() for path in runs.values()):
    return None
  arrays = [read_arrays(path / _FILE) for path in runs.values()]
  return Predictions(tuple(runs), np.stack([of['predicted'] for of in arrays]), arrays[0]['label'])
