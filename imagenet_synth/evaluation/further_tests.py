"""Further tests of a trained classifier: ImageNet-V2, Sketch, R, A; ReaL, other labels of the same images.

They tell how accuracy carries over to images that were collected in another way, or was cut short by labels.
No mixture is compared and nothing is chosen by them.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import data_path, json_hash, read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import Images
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.decode import Interpolation
from imagenet_synth.data.source import Contents
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.metrics.logits import accuracy, accuracy_of_several


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
  # a JSON file of labels, any of which is right in place of an image's own, such as ReaL's real.json. It is a
  # list; entry i lists the labels of the image whose file name ends in the number i + 1, as
  # ILSVRC2012_val_00000001.JPEG does. Images without any are left out. Labels count the classes of `dataset`
  right_labels: str | None = None

  def validate(self) -> None:
    """Raises `Invalid` if answers are confined to the classes of images that have other right labels, too."""
    if self.right_labels is not None and self.answers == 'own':
      raise Invalid('answers', "is 'own', but right_labels are of all classes")

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    return {} if self.right_labels is None else {'right_labels': data_path(self.right_labels)}

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

  def open(
    self, folder: JobFolder, class_names: Sequence[str], size: int, interpolation: Interpolation
  ) -> 'OpenTest':
    """Returns the images, brought to `size`, with the labels of a classifier of `class_names`.

    Raises:
      InputError: they cannot be read, or a class was not trained.
    """
    source = self.dataset.open(folder)
    what = f'{folder.name}: {self.dataset}'
    numbers = label_map(self._names(source.class_names), class_names, what, 'the training images')
    if self.right_labels is not None:
      right = self._right_labels(self.right_labels, numbers, folder)
      number_of = lambda example: _entry(example.get('file_name', ''), len(right), what)
      return OpenTest(Images(source, size, number_of, False, None, interpolation), None, right)
    number_of = lambda example: int(numbers[example['label']])
    images = Images(source, size, number_of, False, None, interpolation)
    is_answer = np.isin(np.arange(len(class_names)), numbers) if self.answers == 'own' else None
    return OpenTest(images, is_answer, None)

  def _right_labels(self, path: str, numbers: np.ndarray, folder: JobFolder) -> np.ndarray:
    """Returns the classifier's labels that are right for each image of a file: int32 [M, L], -1 for none.

    Args:
      path: the file.
      numbers: the classifier's label of each class that the file counts.
      folder: of the job.
    """
    entries = read_json(data_path(path))
    is_list = isinstance(entries, list) and all(isinstance(entry, list) for entry in entries)
    if not is_list or not all(type(label) is int for entry in entries for label in entry):
      raise InputError(f'{path} is no list of lists of labels, as ReaL has it')
    labels = [label for entry in entries for label in entry]
    if not labels or not 0 <= min(labels) <= max(labels) < len(numbers):
      said = f'labels {min(labels)} to {max(labels)}' if labels else 'no labels'
      raise InputError(f'{path} has {said}, but {self.dataset} has {len(numbers)} classes')
    folder.record_data(f'right labels of {self.dataset}', json_hash(entries))
    right = np.full((len(entries), max(map(len, entries))), -1, np.int32)
    for row, entry in zip(right, entries):
      row[: len(entry)] = numbers[entry]
    return right

  def _names(self, names: Sequence[str]) -> list[str]:
    """Returns the trained class that each of the images' classes is."""
    return [self.labels.get(name, name) for name in names]


def _entry(file_name: str | bytes, num: int, what: str) -> int:
  """Returns which entry of `FurtherTest.right_labels`, of `num`, an image's file name leads to."""
  # TFDS has texts as bytes
  name = file_name.decode() if isinstance(file_name, bytes) else file_name
  number = re.search(r'(\d+)\.\w+$', name)
  if number is None or not 0 < int(number[1]) <= num:
    raise InputError(f'{what}: right_labels has {num:,} entries, {name!r} ends in no number of these')
  return int(number[1]) - 1


class Answered(NamedTuple):
  """What a classifier says of the images of a test, and what is right."""

  # float [N, K], -inf for classes that do not count as answers
  logits: np.ndarray
  # int [N]; or, if several may be right, [N, L], where -1 is none
  labels: np.ndarray

  def measure(self) -> dict[str, Any]:
    """Returns top_1 and top_5 in [0, 1], and the number of images that have a label, num_test."""
    several = self.labels.ndim > 1
    right = (accuracy_of_several if several else accuracy)(self.logits, self.labels, top=(1, 5))
    num_test = int(np.sum(self.labels.max(axis=1) >= 0)) if several else len(self.labels)
    return {'top_1': right[1], 'top_5': right[5], 'num_test': num_test}


class OpenTest(NamedTuple):
  """Images of a `FurtherTest`, with the classifier's labels."""

  # their numbers are labels; with `right`, its rows
  images: Images
  # whether a label counts as an answer, bool [K]; None if all do
  is_answer: np.ndarray | None
  # the right labels by the image's number, int [M, L], where -1 is none; None if images have one each
  right: np.ndarray | None

  def answered(self, logits: np.ndarray, numbers: np.ndarray) -> Answered:
    """Returns a classifier's answers, given its logits [N, K] for the images and the numbers of these [N]."""
    if self.is_answer is not None:
      logits = np.where(self.is_answer, logits, -np.inf)
    return Answered(logits, numbers if self.right is None else self.right[numbers])
