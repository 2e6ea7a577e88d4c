"""The measuring of images with an extractor, as every job does it: FID, IS, precision and recall."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_synth.core.progress import progress
from imagenet_synth.data.batches import Images
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.frechet import Moments
from imagenet_synth.metrics.logits import SplitSums, add_predictions, inception_score, splits_of
from imagenet_synth.metrics.manifold import precision_recall

# images in memory at a time
_BATCH = 2048
# which nearest neighbour is on the surface of a manifold, of precision and recall
_NEAREST = 3
# samples that precision and recall are of (Kynkäänniemi et al., 2019: 50K)
_MANIFOLD = 10_000
# of the draws by which images are divided
_SEED = 0

NUM_SPLITS = 10
"""Parts of a set over which the Inception Score's mean and deviation are taken, where no config says it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
  """What an extractor says of a set of images."""

  # the moments of the features of two random halves of the set
  halves: tuple[Moments, Moments]
  # the features of images drawn at random, as many as precision and recall are of, in random order, [n, D];
  # None where only moments are known
  features: np.ndarray | None
  # sums over the predictions of random parts of the set; None where only moments are known
  predictions: SplitSums | None

  @functools.cached_property
  def moments(self) -> Moments:
    """Returns the moments of the features of the whole set."""
    return frechet.merge(*self.halves)


class ReferenceSet(NamedTuple):
  """A set of images that others are compared with."""

  # what an extractor says of it
  observed: Observed
  # what it is, as JSON holds it: the data, `num_images`, the `hash` of the moments, and for splits the
  # `floor`, the Fréchet distance between two random halves, which no generator need fall below
  described: dict[str, Any]


def observe(
  extractor: Extractor, pictures: Iterable[np.ndarray], num_images: int, num_splits: int = NUM_SPLITS
) -> Observed:
  """Returns what the extractor says of images.

  They may come in any order, such as class by class: chance decides which are in which half, in which split
  of the Inception Score, and among those that precision and recall are of. It decides alike for all sets of
  as many images.

  Args:
    extractor: the network.
    pictures: batches uint8 [n, S, S, C]; only one is in memory.
    num_images: how many images there are in all.
    num_splits: parts of the set over which the Inception Score's mean and deviation are taken; of fewer
      images, each is a part.
  """
  halves: tuple[Moments, Moments] | None = None
  # the place of each image in a random order
  places = np.random.default_rng(_SEED).permutation(np.arange(num_images, dtype=np.int32))
  start, num_splits = 0, min(num_splits, num_images)
  rng = np.random.default_rng(_SEED)
  for batch in pictures:
    outputs = extractor.forward(batch)
    features, logits = np.asarray(outputs.features), np.asarray(outputs.logits)
    if halves is None:
      zero = Moments.zero(features.shape[1])
      halves = zero, zero
      kept = np.zeros((min(_MANIFOLD, num_images), features.shape[1]), features.dtype)
      sums = SplitSums.zero(num_splits, logits.shape[1])
    is_first = rng.random(len(batch)) < 0.5
    halves = frechet.update(halves[0], features[is_first]), frechet.update(halves[1], features[~is_first])
    place = places[start : start + len(batch)]
    is_kept = place < len(kept)
    kept[place[is_kept]] = features[is_kept]
    sums = add_predictions(sums, logits, splits_of(place, num_images, num_splits))
    start += len(batch)
  assert halves is not None, 'there are no images'
  assert start == num_images, f'there are {start} images, not {num_images}'
  return Observed(halves, kept, sums)


def in_batches(data: Images, what: str) -> Iterator[np.ndarray]:
  """Yields all images in order, in batches uint8 [n, S, S, C]; `what` names the progress bar."""
  with progress(len(data), what) as bar:
    for start in range(0, len(data), _BATCH):
      pictures, _ = data.take(np.arange(start, min(start + _BATCH, len(data))))
      yield pictures
      bar.update(len(pictures))


def measure(observed: Observed, references: Mapping[str, ReferenceSet]) -> dict[str, Any]:
  """Returns the figures of a set of images, as JSON holds them.

  Args:
    observed: what an extractor says of them.
    references: what the images are compared with; features of the first one must be known.

  Returns:
    fid_NAME for each reference; precision and recall against the first, of `num_manifold` images each; `is`
    and `is_std`, the Inception Score; num_samples; and a `warning` if these are few.
  """
  assert observed.predictions is not None and observed.features is not None
  mean, std = inception_score(observed.predictions)
  result: dict[str, Any] = {
    f'fid_{name}': frechet.frechet_distance(observed.moments, real.observed.moments)
    for name, real in references.items()
  }
  real_features = next(iter(references.values())).observed.features
  assert real_features is not None
  num = min(len(real_features), len(observed.features))
  # of very few images there is no manifold
  if num > _NEAREST:
    result |= precision_recall(real_features[:num], observed.features[:num], _NEAREST)._asdict()
  result |= {'is': mean, 'is_std': std, 'num_samples': observed.moments.count, 'num_manifold': num}
  fewest = min([observed.moments.count] + [real.observed.moments.count for real in references.values()])
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
