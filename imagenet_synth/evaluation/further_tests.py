"""Further sets of real images that a trained classifier is tested on, such as ImageNet-V2, Sketch, R, A.

They tell how accuracy carries over to images that were collected in another way. No mixture is compared and
nothing is chosen by them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import Images
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.source import Contents
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.metrics.logits import accuracy


@dataclasses.dataclass(frozen=True)
class FurtherTest:
  """Labelled images, and how their labels and a classifier's answers are understood."""

  # the images
  dataset: DatasetConfig
  # the trained class that a class of the images is, by their names; those that are not named here are called
  # alike, as by WordNet ids. ImageNet-V2's classes are numbers: '0' is 'n01440764'
  labels: dict[str, str] = dataclasses.field(default_factory=dict)
  # the classes that count as answers: 'all' that were trained, or 'own', those that the images are of, as
  # ImageNet-R and ImageNet-A have it (200 of 1,000)
  answers: Literal['all', 'own'] = 'all'

  def check(self, real: Contents, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` below `key` if the images are not there, or do not suit the ones that are trained on.

    Args:
      real: what is known of those.
      jobs: all jobs.
      key: of this section.
    """
    contents = self.dataset.contents(jobs.workdir, f'{key}.dataset')
    known, trained = contents.class_names, real.class_names
    if real.channels and contents.channels and real.channels != contents.channels:
      raise Invalid(f'{key}.dataset', f'has images of {contents.channels} channels, real has {real.channels}')
    if known == ():
      raise Invalid(f'{key}.dataset', f'is {self.dataset}, which has no labels')
    for name in self.labels:
      if known and name not in known:
        raise Invalid(f'{key}.labels.{name}', f'is not a class of {self.dataset}')
    for name in self._names(known or ()):
      if trained and name not in trained:
        raise Invalid(f'{key}.labels', f'leads to {name!r}, which is not among the classes of `real`')

  def open(self, folder: JobFolder, class_names: Sequence[str], size: int) -> 'OpenTest':
    """Returns the images, brought to `size`, with the labels of a classifier of `class_names`.

    Raises:
      InputError: they cannot be read, or a class was not trained.
    """
    source = self.dataset.open(folder)
    what = f'{folder.name}: {self.dataset}'
    numbers = label_map(self._names(source.class_names), class_names, what, 'the training images')
    images = Images(source, size, lambda example: int(numbers[example['label']]), cache=False)
    return OpenTest(images, np.unique(numbers) if self.answers == 'own' else None)

  def _names(self, names: Sequence[str]) -> list[str]:
    """Returns the trained class that each of the images' classes is."""
    return [self.labels.get(name, name) for name in names]


@dataclasses.dataclass(frozen=True)
class OpenTest:
  """Images of a `FurtherTest`, with the classifier's labels."""

  images: Images
  # the labels that count as answers, ascending, int [k]; None for all
  answers: np.ndarray | None

  def measure(self, predict_fn: Callable[[Images], tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Returns top_1 and top_5 of a classifier in [0, 1], and the number of images, num_test.

    Args:
      predict_fn: returns logits [N, K] and labels [N] of images.
    """
    logits, labels = predict_fn(self.images)
    if self.answers is not None:
      logits, labels = logits[:, self.answers], np.searchsorted(self.answers, labels)
    right = accuracy(logits, labels, top=(1, 5))
    return {'top_1': right[1], 'top_5': right[5], 'num_test': len(labels)}
