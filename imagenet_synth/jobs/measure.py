"""Measuring images with an extractor, as every job does it: FID, IS, precision and recall."""

import dataclasses
import functools
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_synth.core.files import json_hash, tree_hash, write_atomic
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.pipeline import Images
from imagenet_synth.jobs.extractor import Extractor
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.frechet import Moments
from imagenet_synth.metrics.logits import inception_score
from imagenet_synth.metrics.manifold import precision_recall

# images in memory at a time, and samples that precision and recall are of (Kynkäänniemi et al.: 50K)
_BATCH, _MANIFOLD = 2048, 10_000
# those of all real training images would take gigabytes, and no one asks for their Inception Score
_REAL_LOGITS = 50_000


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
  """What an extractor says of a set of images.

  halves: moments of the features of two random halves of the set. features: [n, D], the first of
  them, up to `_MANIFOLD`. logits: [N, K]. Both None where only moments are known.
  """

  halves: tuple[Moments, Moments]
  features: np.ndarray | None
  logits: np.ndarray | None

  @functools.cached_property
  def moments(self) -> Moments:
    return frechet.merge(*self.halves)


def observe(extractor: Extractor, pictures: Iterable[np.ndarray]) -> Observed:
  """Of batches uint8 [n, S, S, C], which need not be in memory together."""
  halves, kept, logits, num = None, [], [], 0
  # not every other image: sets can be in a cycle of classes
  rng = np.random.default_rng(0)
  for batch in pictures:
    outputs = extractor.forward(batch)
    halves = halves or (Moments.zero(outputs.features.shape[1]),) * 2
    is_first = rng.random(len(batch)) < 0.5
    halves = (
      frechet.update(halves[0], outputs.features[is_first]),
      frechet.update(halves[1], outputs.features[~is_first]),
    )
    kept.append(outputs.features[: max(_MANIFOLD - num, 0)])
    logits.append(outputs.logits)
    num += len(batch)
  return Observed(halves, np.concatenate(kept), np.concatenate(logits))


def in_batches(data: Images, what: str) -> Iterator[np.ndarray]:
  """uint8 [n, S, S, C] at a time, in order."""
  with progress(len(data), what) as bar:
    for start in range(0, len(data), _BATCH):
      pictures, _ = data.take(np.arange(start, min(start + _BATCH, len(data))))
      yield pictures
      bar.update(len(pictures))


class Reference(NamedTuple):
  """What images are compared with.

  described: the data, the number of images, `floor`: the Fréchet distance of two random halves, which no
  generator need fall below; `hash`, that of the moments.
  """

  observed: Observed
  described: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Statistics:
  """An npz of feature statistics, `mu` and `sigma`, as ADM publishes them, of `num_images` images."""

  path: str
  num_images: int


@dataclasses.dataclass(frozen=True)
class References:
  """Real splits that generated images are compared with, and statistics from elsewhere, by name."""

  train: DatasetConfig
  validation: DatasetConfig
  statistics: dict[str, Statistics] = dataclasses.field(default_factory=dict)

  def observed(self, extractor: Extractor, size: int, folder: Folder) -> dict[str, Reference]:
    """Each of them; the images of splits are brought to `size` first, as the generated ones are."""
    references = {
      split: observe_real(extractor, getattr(self, split), size, folder) for split in ('train', 'validation')
    }
    return references | {name: _read(of) for name, of in self.statistics.items()}


def _read(statistics: Statistics) -> Reference:
  moments = Moments.load(statistics.path, statistics.num_images)
  observed = Observed((moments, Moments.zero(moments.mean.size)), None, None)
  return _described(observed, {'statistics': statistics.path})


def observe_real(extractor: Extractor, dataset: DatasetConfig, size: int, folder: Folder) -> Reference:
  """All images of a split, brought to `size`; computed once and kept in WORKDIR/references."""
  source = open_dataset(dataset, folder)
  about = {'dataset': dataclasses.asdict(dataset), 'version': source.version, 'size': size}
  path = folder.workdir / 'references' / f'{json_hash([extractor.described, about])}.npz'
  if not path.exists():
    data = Images(source, size, lambda example: 0, cache=False)
    observed = observe(extractor, in_batches(data, f'{folder.name} {dataset.split} {size}x{size}'))
    file = io.BytesIO()
    halves = {
      f'{field.name}_{i}': getattr(half, field.name)
      for i, half in enumerate(observed.halves)
      for field in dataclasses.fields(Moments)
    }
    np.savez(
      file,
      **halves,
      features=observed.features,
      logits=observed.logits[:_REAL_LOGITS],
      floor=frechet.frechet_distance(*observed.halves),
    )
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, file.getvalue())
  with np.load(path) as kept:
    halves = tuple(
      Moments(int(kept[f'count_{i}']), kept[f'mean_{i}'], kept[f'scatter_{i}']) for i in range(2)
    )
    observed, floor = Observed(halves, kept['features'], kept['logits']), float(kept['floor'])
  return _described(
    observed, about | {'resize': 'centre square, antialiased bilinear', 'rounding': 'uint8', 'floor': floor}
  )


def _described(observed: Observed, about: dict[str, Any]) -> Reference:
  moments = observed.moments
  content = tree_hash({'mean': moments.mean, 'scatter': moments.scatter})
  return Reference(observed, about | {'num_images': moments.count, 'hash': content})


def measure(observed: Observed, references: Mapping[str, Reference], num_splits: int = 10) -> dict[str, Any]:
  """FID against each reference, precision and recall against the first, and Inception Score.

  The images must be in class-cyclic or random order.
  """
  moments = {name: reference.observed.moments for name, reference in references.items()}
  mean, std = inception_score(observed.logits, num_splits)
  result = {f'fid_{name}': frechet.frechet_distance(observed.moments, real) for name, real in moments.items()}
  real = next(iter(references.values())).observed.features
  num = min(len(real), len(observed.features))
  result |= precision_recall(real[:num], observed.features[:num])._asdict()
  result |= {'is': mean, 'is_std': std, 'num_samples': observed.moments.count, 'num_manifold': num}
  fewest = min([observed.moments.count] + [real.count for real in moments.values()])
  warning = frechet.sample_warning(fewest)
  return result | ({'warning': warning} if warning else {})


def provenance(extractor: Extractor, references: Mapping[str, Reference]) -> dict[str, Any]:
  """What must stand beside the figures: by what, and compared with what, they were measured."""
  return {
    'extractor': extractor.described,
    'preprocessing': extractor.preprocessing,
    'references': {name: reference.described for name, reference in references.items()},
  }


def real_images(dataset: DatasetConfig, size: int, folder: Folder) -> tuple[np.ndarray, np.ndarray]:
  """All images of a labelled split, uint8 [N, size, size, C], and labels int32 [N]."""
  source = open_dataset(dataset, folder)
  return Images(source, size, lambda example: example['label']).all()
