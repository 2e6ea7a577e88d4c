"""The sweep job: FID, IS and CAS of a grid of sampler settings of a stage, of which the best is chosen.

Each trial's figures have `evaluations`, too: how often the network is evaluated for an image.

All trials draw the same images from the same noise, so that differences come from the settings.
"""

import csv
import dataclasses
import io
import itertools
import math
from typing import Annotated, Any

from etils import epath

from imagenet_synth.cascade.diffusion_stage import SamplerSettings
from imagenet_synth.core.config import Count, Execution, Invalid, NotEmpty, Range, Seed, build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import data_path, write_atomic
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import is_first
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.evaluation.cas import CasConfig, classification_accuracy_score
from imagenet_synth.evaluation.extractors import ExtractorReference
from imagenet_synth.evaluation.fixed_samples import FixedSamples
from imagenet_synth.evaluation.measuring import provenance
from imagenet_synth.evaluation.reference_statistics import (
  References,
  Statistics,
  check_references,
  main_reference,
  observed_references,
)
from imagenet_synth.evaluation.trials import Trial, Trials, loss
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageUse, check_cascade, load_cascade, possible_settings
from imagenet_synth.inputs.text import Text

SWEPT = (
  'guidance',
  'guidance_interval',
  'logvar',
  'num_steps',
  'spacing',
  'noise_augmentation',
  'sampler',
  'eta',
  'thresholding',
)
"""Fields of SamplerSettings that a grid may have."""


@dataclasses.dataclass(frozen=True)
class Halving:
  """Successive halving (Jamieson & Talwalkar, 2016): trials are weeded out on few samples, the rest go on."""

  # samples of each class at the end of each round but the last, ascending
  per_class: Annotated[tuple[Count, ...], NotEmpty()]
  # the share of trials that goes on to the next round; their number is rounded up
  keep: Annotated[float, Range(above=0, below=1)] = 1 / 3


@dataclasses.dataclass(frozen=True)
class Config:
  """What is swept, on what samples, and what the best trial is best in."""

  # the cascade, base first; the last stage is swept, the others feed it
  stages: Annotated[tuple[StageUse, ...], NotEmpty()]
  # the embed job with a prompt for each class
  text: Text
  # the values that are tried of each swept field of SamplerSettings, in all combinations
  grid: Annotated[dict[str, Annotated[tuple[Any, ...], NotEmpty()]], NotEmpty()]
  # the network whose features and logits FID, IS, precision and recall are of
  extractor: ExtractorReference
  # what samples are compared with
  references: References
  # samples of each class in a trial
  per_class: Count
  # the figure by which the best trial is chosen: the lowest FID, or the highest CAS; no later classify job
  # tests on the images that it is against
  choose: str
  # images that a stage samples at a time, over all devices of a host, unless it says it itself; if not given,
  # as many as are sure to fit into memory: see `cascade.sampling_memory.default_batch_size`
  batch_size: Annotated[Count | None, Execution()] = None
  # feature statistics from elsewhere that samples are compared with, too, by name
  statistics: dict[str, Statistics] = dataclasses.field(default_factory=dict)
  # how a classifier is trained on a trial's samples, for CAS; CAS is left out if not given
  cas: CasConfig | None = None
  # how trials are weeded out on the way; all are measured on all samples if not given
  halving: Halving | None = None
  # the seed of the samples
  seed: Seed = 0

  def validate(self) -> None:
    """Raises `Invalid` if the grid, the choice or the rounds are not possible."""
    for name, values in self.grid.items():
      if name not in SWEPT:
        raise Invalid(f'grid.{name}', f'cannot be swept; known: {", ".join(SWEPT)}')
      known = set()
      for value in values:
        try:
          known.add(build(SamplerSettings, {name: value}, 'grid'))
        except InputError as error:
          raise Invalid(f'grid.{name}', str(error).removeprefix(f'config: grid.{name} ')) from None
      if len(known) < len(values):
        raise Invalid(f'grid.{name}', 'has a value twice')
    possible = ['cas', *(f'fid_{name}' for name in (*self.references, *self.statistics))]
    if self.choose not in possible:
      raise Invalid('choose', f'is {self.choose!r}, must be one of {", ".join(possible)}')
    if self.choose == 'cas' and self.cas is None:
      raise Invalid('choose', "is 'cas', but the section cas is missing")
    if self.rounds != sorted(set(self.rounds)):
      raise Invalid('halving.per_class', f'and per_class must ascend, they are {self.rounds}')

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stages, the text and the data don't fit each other."""
    stage = check_cascade(self.stages, self.text, jobs, 'stages')[-1]
    self.text.require_classes(None, jobs, 'text')
    check_references(self.references, self.statistics, jobs)
    for settings in possible_settings(self.stages[-1], jobs):
      for trial in self.trials:
        try:
          dataclasses.replace(settings, **trial).validate()
        except Invalid as fault:
          raise Invalid('grid', f'has a trial whose {fault}') from None
    if None in self.grid.get('logvar', ()):
      SamplerSettings(logvar=None).require_variance(stage, 'grid')
    if self.cas is not None:
      self.cas.check(stage.size, self.text.num_prompts(jobs), jobs, 'cas')
      main = main_reference(self.references)
      if self.cas.test.overlaps(self.references[main], jobs.workdir):
        raise Invalid(
          'cas.test',
          f"is '{self.cas.test}', which has images of references.{main}, '{self.references[main]}', on which "
          'the classifier of real images is trained that CAS is compared with',
        )

  def real_images(self) -> RealImages:
    """Returns the images by which the best trial is chosen; published statistics tell of none."""
    if self.choose == 'cas':
      assert self.cas is not None
      return RealImages(chosen_by={'cas.test': self.cas.test})
    name = self.choose.removeprefix('fid_')
    return RealImages(
      chosen_by={f'references.{name}': self.references[name]} if name in self.references else {}
    )

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices cannot share the classifiers, or a batch of theirs equally."""
    if self.cas is not None:
      self.cas.recipe.require_devices('cas.recipe')

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    return {f'statistics.{name}.path': data_path(of.path) for name, of in self.statistics.items()}

  @property
  def rounds(self) -> list[int]:
    """Returns the samples of each class at the end of each round."""
    return [*(self.halving.per_class if self.halving else ()), self.per_class]

  @property
  def trials(self) -> list[Trial]:
    """Returns all combinations of the grid."""
    return [_trial(dict(zip(self.grid, values)), self) for values in itertools.product(*self.grid.values())]


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Measures this worker's part of the trials, and returns the figures of all and the settings of the best.

  The figures are written into results.csv, too.

  Raises:
    Unfinished: the other workers have not measured theirs yet.
  """
  embedded = config.text.open(folder)
  text, class_names = embedded.states, embedded.class_names
  (*below, swept), origins = load_cascade(config.stages, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  samples = FixedSamples(below, text, config.seed, labels, indices, config.batch_size, folder.path)
  extractor = config.extractor.open(folder)
  references = observed_references(config.references, config.statistics, extractor, swept.stage.size, folder)
  ends = [per_class * len(text.prompts) for per_class in config.rounds]
  trials = Trials(
    folder,
    swept.stage,
    lambda trial: dataclasses.replace(swept.settings, **trial),
    lambda trial: swept,
    samples,
    ends,
    extractor,
    references,
    class_names,
    config.cas,
  )
  trials.say_cost(config.trials)
  rows = [row | {'evaluations': trials.cost([_trial(row, config)], 1)} for row in _rows(config, trials)]
  samples.clean()
  # only trials of the last round have been measured on all samples
  last = [row for row in rows if row['num_samples'] == ends[-1]]
  best = _trial(min(last, key=lambda row: loss(row, config.choose)), config)
  if is_first():
    write_atomic(folder.path / 'results.csv', _csv(rows))
  result = {
    'best': best,
    # with those that earlier sweeps have found: a stage names only the last sweep in `tuned_by`
    'settings': {**config.stages[-1].tuned(folder), **best},
    'choose': config.choose,
    'rows': rows,
    'stages': origins,
    'num_drawn': sum(row['num_samples'] for row in rows),
    'num_without_halving': len(config.trials) * len(labels),
    **provenance(extractor, references),
  }
  if config.cas:
    # what the same classifier gets from the real training images at this size
    real = config.references[main_reference(config.references)].open(folder)
    result['cas_real'] = classification_accuracy_score(
      config.cas, real, real.class_names, class_names, swept.stage.size, folder.path / 'real', folder
    )
  return result


def _rows(config: Config, trials: Trials) -> list[dict[str, Any]]:
  """Runs the rounds, and returns each trial's figures of its last one, in the order of the grid."""
  grid = config.trials
  left, rows = grid, []
  for end in trials.ends:
    ranked = sorted(trials.measured(left, end), key=lambda row: loss(row, config.choose))
    if config.halving is None or end == trials.ends[-1]:
      num_kept = 0
    else:
      num_kept = math.ceil(config.halving.keep * len(ranked))
    rows += ranked[num_kept:]
    left = [_trial(row, config) for row in ranked[:num_kept]]
    for row in ranked[num_kept:]:
      trials.delete_images(_trial(row, config))
  return sorted(rows, key=lambda row: grid.index(_trial(row, config)))


def _trial(row: dict[str, Any], config: Config) -> Trial:
  """Returns the trial that a row of figures is of, its settings typed as those of a sampler."""
  return {name: getattr(build(SamplerSettings, {name: row[name]}, 'grid'), name) for name in config.grid}


def _csv(rows: list[dict[str, Any]]) -> str:
  """Returns rows of figures as CSV, with the mean top-1 for CAS."""
  flat = [
    {key: value['top_1']['mean'] if key == 'cas' else value for key, value in row.items()} for row in rows
  ]
  file = io.StringIO()
  # only some rows of a sweep with halving carry a warning of few samples
  writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)))
  writer.writeheader()
  writer.writerows(flat)
  return file.getvalue()
