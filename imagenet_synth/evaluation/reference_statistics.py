"""References that generated images are compared with: real splits, and published statistics."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from etils import epath

from imagenet_synth.core.config import Count, Invalid, NotEmpty
from imagenet_synth.core.division import Unfinished
from imagenet_synth.core.files import are_there, data_path, json_hash, read_arrays, tree_hash, write_arrays
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import as_first_has, comes_to_be, is_first, wait_for_all
from imagenet_synth.data.batches import Images
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.measuring import NUM_SPLITS, Observed, ReferenceSet
from imagenet_synth.evaluation.observation import Observation
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.metrics.frechet import Moments
from imagenet_synth.metrics.logits import SplitSums


@dataclasses.dataclass(frozen=True)
class Statistics:
  """An npz of feature statistics, `mu` and `sigma`, as ADM publishes them."""

  # the file
  path: str
  # the number of images that they are of
  num_images: Count


References = Annotated[dict[str, DatasetConfig], NotEmpty()]
"""Real splits by any name. All but FID is against 'train', or else the first name of all."""


def check_references(
  references: Mapping[str, DatasetConfig], statistics: Mapping[str, Statistics], jobs: KnownJobs
) -> None:
  """Raises `Invalid` if a split is known not to be there, or statistics have the name of a split."""
  for name, dataset in references.items():
    dataset.contents(jobs.workdir, f'references.{name}')
  for name in statistics:
    if name in references:
      raise Invalid(f'statistics.{name}', 'has the name of a split; give it another one')


def main_reference(references: Mapping[str, DatasetConfig]) -> str:
  """Returns the name of the split that KID, precision and the like are against."""
  return 'train' if 'train' in references else min(references)


def observed_references(
  references: Mapping[str, DatasetConfig],
  statistics: Mapping[str, Statistics],
  extractor: Extractor,
  size: int,
  folder: JobFolder,
  num_splits: int = NUM_SPLITS,
) -> dict[str, ReferenceSet]:
  """Returns each of them by its name, the main one first.

  Images of the splits are brought to `size` first, as the generated ones are; `num_splits` is that of their
  Inception Score.
  """
  main = main_reference(references)
  names = [main, *(name for name in sorted(references) if name != main)]
  splits = {name: observe_real(extractor, references[name], size, folder, num_splits) for name in names}
  return splits | {name: _read(of) for name, of in statistics.items()}


def observe_real(
  extractor: Extractor, dataset: DatasetConfig, size: int, folder: JobFolder, num_splits: int = NUM_SPLITS
) -> ReferenceSet:
  """Returns the images of a split, brought to `size`, as a reference.

  What the extractor says of them is kept in WORKDIR/references, for all jobs.
  """
  source = dataset.open(folder)
  about = {'dataset': dataset.without_place, 'version': source.version, 'size': size}
  name = json_hash([extractor.described, extractor.computed, about, num_splits])
  path = folder.workdir / 'references' / f'{name}.npz'
  what = f'{folder.name} {dataset.split} {size}x{size}'
  (is_there,) = as_first_has([path.exists()])
  if not is_there:
    data = Images(source, size, lambda example: 0, cache=False)
    observation = Observation(extractor, data, path.with_suffix('.blocks'), what, num_splits)
    observation.observe(folder.worker.in_turn(observation.blocks), path.exists)
    are_observed = lambda: [True] if path.exists() else are_there(observation.blocks)
    folder.worker.require_all(what, are_observed, 'blocks')
    if is_first():
      _keep(observation, path)
    wait_for_all(what)
    comes_to_be(path.exists)
  kept = read_arrays(path)
  moments = Moments(int(kept['count']), kept['mean'], kept['scatter'])
  predictions = SplitSums(*(kept[name] for name in SplitSums._fields))
  about |= {'resize': 'centre square, antialiased bilinear', 'rounding': 'uint8'}
  observed = Observed(moments, kept['features'], predictions if len(predictions.num) else None)
  return _described(observed, about)


def _keep(observation: Observation, path: epath.Path) -> None:
  """Writes what has been observed, unless another worker has."""
  with contextlib.suppress(Unfinished):
    observed = observation.merged()
    assert observed.features is not None
    # of a network without classes, sums over none
    predictions = observed.predictions or SplitSums.zero(0, 0)
    write_arrays(
      path, **dataclasses.asdict(observed.moments), **predictions._asdict(), features=observed.features
    )
  observation.delete()


def _read(statistics: Statistics) -> ReferenceSet:
  """Returns published statistics as a reference."""
  moments = Moments.load(data_path(statistics.path), statistics.num_images)
  return _described(Observed(moments, None, None), {'statistics': statistics.path})


def _described(observed: Observed, about: dict[str, Any]) -> ReferenceSet:
  """Returns a reference that is described by `about`, the number of images and the hash of the moments."""
  moments = observed.moments
  content = tree_hash({'mean': moments.mean, 'scatter': moments.scatter})
  return ReferenceSet(observed, about | {'num_images': moments.count, 'hash': content})
