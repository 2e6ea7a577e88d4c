"""The evaluate job: FID, KID, precision and the like, and Inception Score of images, at each size."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any

from etils import epath

from imagenet_synth.core.config import Count, Distinct, Invalid, NotEmpty
from imagenet_synth.core.files import are_there, data_path
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import say
from imagenet_synth.data.batches import Images
from imagenet_synth.data.foreign_images import open_images
from imagenet_synth.data.source import Examples
from imagenet_synth.evaluation.extractors import Extractor, ExtractorReference
from imagenet_synth.evaluation.measuring import NUM_SPLITS, SIMILARITY, ReferenceSet, measure, provenance
from imagenet_synth.evaluation.observation import Observation
from imagenet_synth.evaluation.reference_statistics import (
  References,
  Statistics,
  check_references,
  observed_references,
)
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples


@dataclasses.dataclass(frozen=True)
class Config:
  """Which images are measured, by what, and compared with what. They are either `samples` or at `path`."""

  # the sizes at which images are measured: for `samples`, sizes that are there; for `path`, those to which
  # they are brought
  sizes: Annotated[tuple[Count, ...], NotEmpty(), Distinct()]
  # the network whose features and logits the figures are of
  extractor: ExtractorReference
  # what the images are compared with
  references: References
  # feature statistics from elsewhere that they are compared with, too, by name
  statistics: dict[str, Statistics] = dataclasses.field(default_factory=dict)
  # the generate job whose images are measured
  samples: Samples | None = None
  # images that were made elsewhere: shards, files or ADM's npz, see `data.foreign_images`
  path: str | None = None
  # parts of the images over which the Inception Score's mean and deviation are taken
  num_splits: Count = NUM_SPLITS

  def validate(self) -> None:
    """Raises `Invalid` unless exactly one of `samples` and `path` is given."""
    if (self.samples is None) == (self.path is None):
      raise Invalid('samples', f'is {self.samples} and path is {self.path}; give one of the two')

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if images or references are known not to be there."""
    check_references(self.references, self.statistics, jobs)
    if self.samples is not None:
      for i, size in enumerate(self.sizes):
        self.samples.require_size(size, jobs, f'sizes[{i}]')

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    own = {} if self.path is None else {'path': data_path(self.path)}
    return own | {f'statistics.{name}.path': data_path(of.path) for name, of in self.statistics.items()}


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Observes this worker's part of the images; when all are observed, returns the figures.

  The moments of their features are written into statistics_SIZE.npz, as ADM has them.

  Raises:
    Unfinished: the other workers have not observed theirs yet.
  """
  extractor = config.extractor.open(folder)
  observations = {size: _observation(config, size, extractor, folder) for size in config.sizes}
  for observation in observations.values():
    observation.observe(folder.worker.part(observation.blocks))
  observed_at = functools.partial(observed_references, config.references, config.statistics, extractor)
  references = {size: observed_at(size, folder, config.num_splits) for size in config.sizes}
  blocks = [block for observation in observations.values() for block in observation.blocks]
  folder.worker.end(folder.name, lambda: are_there(blocks), 'blocks of images')
  sizes = {}
  for size, observation in observations.items():
    observed = observation.merged()
    observed.moments.save(folder.path / f'statistics_{size}.npz')
    sizes[size] = {
      **measure(observed, references[size]),
      'real': _real(references[size], config),
      **provenance(extractor, references[size]),
    }
    say(f'{folder.name}: {_in_words(size, sizes[size])}')
  for observation in observations.values():
    observation.delete()
  return {
    'samples': config.path if config.samples is None else config.samples.name,
    'finetuned': config.samples and config.samples.open(folder).is_finetuned,
    'sizes': sizes,
    'extractor': extractor.described,
    'caveat': extractor.caveat,
    'doubt': extractor.doubt,
  }


def _real(references: Mapping[str, ReferenceSet], config: Config) -> dict[str, dict[str, Any]]:
  """Returns what the other real splits get against the main one, by name."""
  main, *others = references
  others = [name for name in others if name in config.references]
  return {name: measure(references[name].observed, {main: references[main]}) for name in others}


def _in_words(size: int, figures: Mapping[str, Any]) -> str:
  """Returns the figures of one size as a line."""
  distances = ', '.join(
    f'{key.removeprefix("fid_")} FID {value:.4g}' for key, value in figures.items() if key.startswith('fid_')
  )
  shares = ''.join(f', {key} {figures[key]:.3f}' for key in SIMILARITY if key in figures)
  kid = f', KID {figures["kid"]:.4g}' if 'kid' in figures else ''
  score = f', Inception Score {figures["is"]:.2f} ± {figures["is_std"]:.2f}' if 'is' in figures else ''
  return f'{size}x{size}, {figures["num_samples"]:,} images: {distances}{kid}{shares}{score}'


def _observation(config: Config, size: int, extractor: Extractor, folder: JobFolder) -> Observation:
  """Returns the images of a size, to be observed."""
  data = Images(_images(config, size, folder), size, lambda example: 0, cache=False)
  path = folder.path / f'blocks_{size}'
  return Observation(extractor, data, path, f'{folder.name} {size}x{size}', config.num_splits)


def _images(config: Config, size: int, folder: JobFolder) -> Examples:
  """Returns the images that are measured at a size."""
  if config.samples is not None:
    return config.samples.open(folder).images(size)
  assert config.path is not None
  return open_images(data_path(config.path))
