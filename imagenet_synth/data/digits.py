"""The handwritten digits that ship with scikit-learn, as a small stand-in for ImageNet.

They are real, labelled, and on every machine that has scikit-learn: whatever the program does to
ImageNet, it can do to these in seconds and without a network.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from imagenet_synth.data.source import Contents

NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
IMAGE_SIZE = 32
TRAIN_PER_CLASS = 60
VALIDATION_PER_CLASS = 40

_NUM_ROWS = 1797
_SPLIT_SEED = 20230417
_MAX_INK = 16  # A pixel of the source counts the inked cells among 4 x 4.


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the rows of each split: {name: int64 [n]}.

  `train` has TRAIN_PER_CLASS rows of each class, `validation` VALIDATION_PER_CLASS, `test` all others.
  Their random order is fixed: it depends on `labels` alone.

  Args:
    labels: int [N], the class of each row.
  """
  # RandomState and not default_rng: numpy froze the stream of the former for good, and the splits
  # must stay what they are across numpy versions, or train images would leak into the test split.
  rng = np.random.RandomState(_SPLIT_SEED)
  order = rng.permutation(len(labels))
  # Of each element of `order`, its place among those of its class.
  rank = np.empty(len(labels), np.int64)
  for label in np.unique(labels):
    members = np.flatnonzero(labels[order] == label)
    rank[members] = np.arange(len(members))
  held_in = TRAIN_PER_CLASS + VALIDATION_PER_CLASS
  splits = {
    'train': order[rank < TRAIN_PER_CLASS],
    'validation': order[(rank >= TRAIN_PER_CLASS) & (rank < held_in)],
    'test': order[rank >= held_in],
  }
  # Shuffled again: else the later splits would begin with the classes that filled up the first.
  return {split: rng.permutation(rows) for split, rows in splits.items()}


def enlarge(ink: np.ndarray) -> Image.Image:
  """Returns a grey image of 32 x 32 pixels, light strokes on black, of ink [8, 8] in 0..16."""
  grey = np.round(ink * (255 / _MAX_INK)).astype(np.uint8)
  return Image.fromarray(grey).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)


def contents() -> dict[str, Contents]:
  """Returns what is in each split, by its name."""
  num_others = _NUM_ROWS - (TRAIN_PER_CLASS + VALIDATION_PER_CLASS) * len(NAMES)
  sizes = {
    'train': TRAIN_PER_CLASS * len(NAMES),
    'validation': VALIDATION_PER_CLASS * len(NAMES),
    'test': num_others,
  }
  return {split: Contents(size, NAMES, (), 1, IMAGE_SIZE) for split, size in sizes.items()}


class Digits(tfds.core.GeneratorBasedBuilder):
  """1,797 handwritten digits: image uint8 [32, 32, 1], label in 0..9.

  Row r of a split is row `split_indices(...)[split][r]` of `sklearn.datasets.load_digits`.
  Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
  """

  VERSION: ClassVar[tfds.core.Version] = tfds.core.Version('1.0.0')
  # Nothing is downloaded. TFDS would look for checksums with importlib_resources, which it uses
  # and does not require (4.9.10).
  url_infos: ClassVar[None] = None

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Handwritten digits of scikit-learn, enlarged from 8 x 8 to 32 x 32.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 1), encoding_format='png'),
          'label': tfds.features.ClassLabel(names=NAMES),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager
    digits = load_digits()
    splits = split_indices(digits.target)
    return {
      split: self._generate_examples(digits.images[rows], digits.target[rows])
      for split, rows in splits.items()
    }

  def _generate_examples(
    self, images: np.ndarray, labels: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, (ink, label) in enumerate(zip(images, labels)):
      # A PIL image and not an array: TFDS would load TensorFlow to compress an array.
      yield row, {'image': enlarge(ink), 'label': int(label)}
