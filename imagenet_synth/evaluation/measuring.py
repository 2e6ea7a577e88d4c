"""The measuring of images with an extractor, as every job does it: FID, KID, IS, precision and the like.

Images are streamed: what is kept of them does not grow with their number, but for the features of a choice.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tqdm

from imagenet_synth.data.batches import Ahead, Images
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.frechet import Moments
from imagenet_synth.metrics.kernel import kernel_distance
from imagenet_synth.metrics.logits import SplitSums, add_predictions, inception_score, splits_of
from imagenet_synth.metrics.manifold import Similarity, similarity

# images of up to 256x256 pixels that are observed at a time, while as many are decoded; there are fewer of
# larger ones, which take the same memory, 400 MB
_BATCH, _PIXELS = 2048, 2048 * 256**2
# nearest neighbours that figures of similarity need: those of density and coverage (Naeem et al., 2020)
_NEAREST = 5
# images whose features are kept, which KID, precision and the like are of (Kynkäänniemi et al., 2019: 50K)
_KEPT = 50_000
# of the draws by which images are divided
_SEED = 0

NUM_SPLITS = 10
"""Parts of a set over which the Inception Score's mean and deviation are taken, where no config says it."""

SIMILARITY = Similarity._fields
"""Precision and the like, by their names among the figures."""


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
  """What an extractor says of a set of images."""

  # the moments of the features of all
  moments: Moments
  # the features of images drawn at random, `_KEPT` at most, in random order, [n, D]; None where only moments
  # are known
  features: np.ndarray | None
  # sums over the predictions of random parts of the set; None where only moments are known, or the network
  # tells no classes
  predictions: SplitSums | None
  # what `noise_floor` has returned, by number of samples
  _floors: dict[int, float | None] = dataclasses.field(default_factory=dict)

  def noise_floor(self, num: int) -> float | None:
    """Returns the FID that `num` real images would have to this set, on average: see `frechet.noise_floor`.

    It is None where the features are not known, or too few.
    """
    if self.features is not None and num not in self._floors:
      self._floors[num] = frechet.noise_floor(self.moments, self.features, num)
    return self._floors.get(num)


class ReferenceSet(NamedTuple):
  """A set of images that others are compared with."""

  # what an extractor says of it
  observed: Observed
  # what it is, as JSON holds it: the data, `num_images` and the `hash` of the moments
  described: dict[str, Any]


class Part(NamedTuple):
  """What an extractor says of a part of a set of images."""

  # the moments of their features
  moments: Moments
  # of those whose features are kept: their places among all that are kept, int32 [n]
  places: np.ndarray
  # their features, [n, D]
  features: np.ndarray
  # sums over their predictions by random parts of the whole set; of no classes if the network tells none
  predictions: SplitSums


def observe(
  extractor: Extractor,
  pictures: Iterable[np.ndarray],
  rows: range,
  num_images: int,
  num_splits: int = NUM_SPLITS,
) -> Part:
  """Returns what the extractor says of some images of a set.

  They may come in any order, such as class by class: chance decides which are in which split of the Inception
  Score, and of which the features are kept. It decides alike for all sets of as many images.

  Args:
    extractor: the network.
    pictures: batches uint8 [n, S, S, C]; only one is in memory.
    rows: the numbers of the images, in a row; not none.
    num_images: how many images there are in all.
    num_splits: parts of the set over which the Inception Score's mean and deviation are taken; of fewer
      images, each is a part.
  """
  moments: Moments | None = None
  # the place of each image in a random order
  places = np.random.default_rng(_SEED).permutation(np.arange(num_images, dtype=np.int32))
  start, num_splits = rows.start, min(num_splits, num_images)
  kept = []
  for batch in pictures:
    outputs = extractor.forward(batch)
    features, logits = np.asarray(outputs.features), np.asarray(outputs.logits)
    if moments is None:
      moments = Moments.zero(features.shape[1])
      sums = SplitSums.zero(num_splits, logits.shape[1])
    moments = frechet.update(moments, features)
    place = places[start : start + len(batch)]
    is_kept = place < _KEPT
    kept.append((place[is_kept], features[is_kept]))
    if logits.shape[1]:
      sums = add_predictions(sums, logits, splits_of(place, num_images, num_splits))
    start += len(batch)
  assert moments is not None, 'there are no images'
  assert start == rows.stop, f'there are {start - rows.start} images, not {len(rows)}'
  kept_places, kept_features = map(np.concatenate, zip(*kept))
  return Part(moments, kept_places, kept_features, sums)


def merged(parts: Iterable[Part], num_images: int) -> Observed:
  """Returns what an extractor says of a set of images, given what it says of its parts; one is in memory."""
  parts = iter(parts)
  first = next(parts)
  moments, predictions = first.moments, first.predictions
  features = np.zeros((min(_KEPT, num_images), first.features.shape[1]), first.features.dtype)
  features[first.places] = first.features
  for part in parts:
    moments = frechet.merge(moments, part.moments)
    predictions = SplitSums(*map(np.add, predictions, part.predictions))
    features[part.places] = part.features
  assert moments.count == num_images, f'there are {moments.count} images, not {num_images}'
  return Observed(moments, features, predictions if predictions.probs.shape[1] else None)


def in_batches(data: Images, rows: range, bar: tqdm.tqdm) -> Iterator[np.ndarray]:
  """Yields some images in order, in batches uint8 [n, S, S, C], and counts them on a progress bar.

  The next batch is decoded while one is used.
  """
  size = min(_BATCH, max(_PIXELS // data.size**2, 1))
  starts = range(rows.start, rows.stop, size)
  batches = (data.take(np.arange(start, min(start + size, rows.stop)))[0] for start in starts)
  for pictures in Ahead(batches):
    yield pictures
    bar.update(len(pictures))


def measure(observed: Observed, references: Mapping[str, ReferenceSet]) -> dict[str, Any]:
  """Returns the figures of a set of images, as JSON holds them.

  Args:
    observed: what an extractor says of them.
    references: what the images are compared with; features of the first one must be known.

  Returns:
    fid_NAME for each reference, and floor_NAME, what as many real images would have, where that can be told;
    against the first reference, of `num_manifold` images each, `kid` and `kid_std`, precision, recall,
    density and coverage; `is` and `is_std`, the Inception Score, if the network tells classes; num_samples;
    and a `warning` if these are few.
  """
  assert observed.features is not None
  num_samples = observed.moments.count
  result: dict[str, Any] = {}
  for name, real in references.items():
    result[f'fid_{name}'] = frechet.frechet_distance(observed.moments, real.observed.moments)
  for name, real in references.items():
    floor = real.observed.noise_floor(num_samples)
    result |= {} if floor is None else {f'floor_{name}': floor}
  real_features = next(iter(references.values())).observed.features
  assert real_features is not None
  num = min(len(real_features), len(observed.features))
  pair = real_features[:num], observed.features[:num]
  # of very few images there are no neighbours
  if num > _NEAREST:
    mean, std = kernel_distance(*pair)
    result |= {'kid': mean, 'kid_std': std, **similarity(*pair, k_density=_NEAREST)._asdict()}
  if observed.predictions is not None:
    result['is'], result['is_std'] = inception_score(observed.predictions)
  result |= {'num_samples': num_samples, 'num_manifold': num}
  fewest = min([num_samples] + [real.observed.moments.count for real in references.values()])
  warning = frechet.sample_warning(fewest)
  return result | ({'warning': warning} if warning else {})


def provenance(extractor: Extractor, references: Mapping[str, ReferenceSet]) -> dict[str, Any]:
  """Returns what must stand beside the figures: which extractor and which references they are made with."""
  return {
    'extractor': extractor.described,
    'caveat': extractor.caveat,
    'doubt': extractor.doubt,
    'preprocessing': extractor.preprocessing,
    'computed': extractor.computed,
    'references': {name: reference.described for name, reference in references.items()},
  }
