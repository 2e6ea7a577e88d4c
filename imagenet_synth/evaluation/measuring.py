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
from imagenet_synth.metrics.logits import inception_score
from imagenet_synth.metrics.manifold import precision_recall

# images in memory at a time
_BATCH = 2048
# which nearest neighbour is on the surface of a manifold, of precision and recall
_NEAREST = 3
# samples that precision and recall are of (Kynkäänniemi et al., 2019: 50K)
_MANIFOLD = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
  """What an extractor says of a set of images."""

  # the moments of the features of two random halves of the set
  halves: tuple[Moments, Moments]
  # the features of the first images, as many as precision and recall are of, [n, D]; None where only moments
  # are known
  features: np.ndarray | None
  # the logits of all images, [N, K]; None where only moments are known
  logits: np.ndarray | None

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


def observe(extractor: Extractor, pictures: Iterable[np.ndarray]) -> Observed:
  """Returns what the extractor says of images, in batches uint8 [n, S, S, C]; only one is in memory."""
  halves: tuple[Moments, Moments] | None = None
  kept, logits, num = [], [], 0
  # at random, not every other image: sets can go through the classes in a cycle
  rng = np.random.default_rng(0)
  for batch in pictures:
    outputs = extractor.forward(batch)
    features = np.asarray(outputs.features)
    zero = Moments.zero(features.shape[1])
    first, second = halves or (zero, zero)
    is_first = rng.random(len(batch)) < 0.5
    halves = frechet.update(first, features[is_first]), frechet.update(second, features[~is_first])
    kept.append(features[: max(_MANIFOLD - num, 0)])
    logits.append(np.asarray(outputs.logits))
    num += len(batch)
  assert halves is not None, 'there are no images'
  return Observed(halves, np.concatenate(kept), np.concatenate(logits))


def in_batches(data: Images, what: str) -> Iterator[np.ndarray]:
  """Yields all images in order, in batches uint8 [n, S, S, C]; `what` names the progress bar."""
  with progress(len(data), what) as bar:
    for start in range(0, len(data), _BATCH):
      pictures, _ = data.take(np.arange(start, min(start + _BATCH, len(data))))
      yield pictures
      bar.update(len(pictures))


def measure(
  observed: Observed, references: Mapping[str, ReferenceSet], num_splits: int = 10
) -> dict[str, Any]:
  """Returns the figures of a set of images, as JSON holds them.

  Args:
    observed: what an extractor says of them. They must be in random order, or go through the classes in a
      cycle, as each split of the Inception Score must have all classes.
    references: what the images are compared with; features of the first one must be known.
    num_splits: parts of the set over which the Inception Score's mean and deviation are taken.

  Returns:
    fid_NAME for each reference; precision and recall against the first, of `num_manifold` images each; `is`
    and `is_std`, the Inception Score; num_samples; and a `warning` if these are few.
  """
  assert observed.logits is not None and observed.features is not None
  # of very few images: as many splits as there are, and no manifold
  mean, std = inception_score(observed.logits, min(num_splits, len(observed.logits)))
  result: dict[str, Any] = {
    f'fid_{name}': frechet.frechet_distance(observed.moments, real.observed.moments)
    for name, real in references.items()
  }
  real_features = next(iter(references.values())).observed.features
  assert real_features is not None
  num = min(len(real_features), len(observed.features))
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
    'references': {name: reference.described for name, reference in references.items()},
  }
