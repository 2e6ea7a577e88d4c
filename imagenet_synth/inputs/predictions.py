"""What the classifiers of a job have said of each test image, kept beside the metrics of each run.

    predictions.npz         of the images of `test`
    predictions_NAME.npz    of those of the further test NAME

In each file, rows are images in the order of their data set:

    label         the class, [N]; where several may be right, [N, L], and the number of classes is none
    predicted     the likeliest classes, [N, k], the likeliest first; all, where there are no more than ten
    probability   their probabilities, float32 [N, k]

So accuracies, calibration, paired tests, and ensembles of the seeds need no training again. Of ImageNet's
50,000 test images they are 3 MB at most, where logits would be 200.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.core.files import read_arrays, write_arrays
from imagenet_synth.metrics.class_differences import ClassDifferences, class_differences
from imagenet_synth.metrics.logits import likeliest
from imagenet_synth.metrics.uncertainty import Difference, accuracy_difference

# the likeliest classes, of which probabilities are kept
_NUM_KEPT = 10


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

  def class_differences(self, other: 'Predictions', num_classes: int) -> ClassDifferences:
    """Returns how much more is right of each class than of `other`, of the same images."""
    same_seeds = sorted(self.seeds) == sorted(other.seeds)
    return class_differences(self._correct(), other._correct(), self.labels, num_classes, same_seeds)

  def _correct(self) -> np.ndarray:
    """Returns bool [S, N], whether an image is taken for what it is; in the order of the seeds' numbers."""
    return self.predicted[np.argsort(self.seeds)] == self.labels


def predictions_path(run: epath.Path, test: str = '') -> epath.Path:
  """Returns where predictions are in the folder of a run; `test` is the name of a further test."""
  return run / (f'predictions_{test}.npz' if test else 'predictions.npz')


def save_predictions(path: epath.Path, logits: np.ndarray, labels: np.ndarray) -> None:
  """Writes what logits [N, K] say of each image, and its label, int [N]; or [N, L], where -1 is none."""
  num_classes = logits.shape[1]
  predicted, probability = likeliest(logits, min(num_classes, _NUM_KEPT))
  several = labels.ndim > 1
  small = np.min_scalar_type(num_classes if several else num_classes - 1)
  labels = np.where(labels < 0, num_classes, labels) if several else labels
  write_arrays(
    path,
    compressed=True,
    label=labels.astype(small),
    predicted=predicted.astype(small),
    probability=probability,
  )


def load_predictions(runs: Mapping[int, epath.Path]) -> Predictions | None:
  """Returns what was kept of `test` in the folders of runs, by their seeds; None if that of one is not there.

  Raises:
    InputError: a file cannot be read.
  """
  paths = [predictions_path(run) for run in runs.values()]
  if not paths or not all(path.exists() for path in paths):
    return None
  arrays = [read_arrays(path) for path in paths]
  # an earlier version of the program kept the likeliest class alone, as [N]
  predicted = np.stack([of['predicted'].reshape(len(of['label']), -1)[:, 0] for of in arrays])
  return Predictions(tuple(runs), predicted, arrays[0]['label'])
