"""The select job: of a training run's checkpoints, the one whose samples are best in FID or CAS is chosen.

Weights that other jobs hand on can be compared with them, such as those that fine-tuning started from: it may
have been for the worse.
"""

import dataclasses
from typing import Annotated, Any, Literal

from imagenet_synth.cascade.diffusion_stage import SamplerSettings, Stage, TrainedStage
from imagenet_synth.core.config import Count, Distinct, Execution, Invalid, Seed, parts
from imagenet_synth.core.files import delete_tree
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import is_first
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.evaluation.cas import CasConfig
from imagenet_synth.evaluation.extractors import ExtractorReference
from imagenet_synth.evaluation.fixed_samples import FixedSamples
from imagenet_synth.evaluation.measuring import provenance
from imagenet_synth.evaluation.reference_statistics import observe_real
from imagenet_synth.evaluation.trials import Trials, loss
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import (
  StageUse,
  StageWeights,
  Weights,
  check_cascade,
  check_stage,
  load_cascade,
  load_variables,
)
from imagenet_synth.inputs.text import Text

# the figures of a trial that `choose` names
_FIGURES = {'fid': 'fid_validation', 'cas': 'cas'}


@dataclasses.dataclass(frozen=True)
class Config:
  """Which checkpoints are compared, on what samples, with what."""

  # the training job whose checkpoints are compared
  weights: Weights
  # the embed job with a prompt for each class
  text: Text
  # how the checkpoints are sampled (the paper: Imagen's default settings)
  sampler: SamplerSettings
  # the network whose features FID is of
  extractor: ExtractorReference
  # the real images that samples are compared with, on which no later classify job tests (the paper: the
  # validation set, on which it tests, too)
  reference: DatasetConfig
  # samples of each class (the paper: 10K in all)
  per_class: Count
  # images that a stage samples at a time, over all devices of a host, unless it says it itself; if not given,
  # as many as are sure to fit into memory: see `cascade.sampling_memory.default_batch_size`
  batch_size: Annotated[Count | None, Execution()] = None
  # the stages that feed the one that is compared, base first
  below: tuple[StageUse, ...] = ()
  # jobs whose weights, of the same stage, can be chosen as well, such as what fine-tuning has started from
  others: Annotated[tuple[Weights, ...], Distinct()] = ()
  # the figure by which one is chosen: the lowest FID, or the highest CAS; of equals, the earliest
  choose: Literal['fid', 'cas'] = 'fid'
  # how a classifier is trained on the samples of a checkpoint, for CAS; CAS is left out if not given
  cas: CasConfig | None = None
  # whether the other checkpoints of `weights` are deleted in the end, except for the last
  prune: bool = False
  # the seed of the samples
  seed: Seed = 0

  def validate(self) -> None:
    """Raises `Invalid` if what one is chosen by is not measured."""
    if self.choose == 'cas' and self.cas is None:
      raise Invalid('choose', "is 'cas', but the section cas is missing")

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stages, the text and the data don't fit each other."""
    below = check_cascade(self.below, self.text, jobs, 'below')
    use = StageUse(self.weights, self.sampler)
    stage = check_stage(use, below[-1] if below else None, self.text, jobs, '')
    for i, other in enumerate(self.others):
      if other == self.weights:
        raise Invalid(f'others[{i}]', f'is {other}, whose checkpoints are compared already')
      if other.stage(jobs) != stage:
        raise Invalid(f'others[{i}]', f'is {other}, whose stage is not that of {self.weights}')
      other.require_text(self.text, jobs, 'text')
    self.text.require_classes(None, jobs, 'text')
    self.reference.contents(jobs.workdir, 'reference')
    if self.cas is not None:
      self.cas.check(stage.size, self.text.num_prompts(jobs), jobs, 'cas')

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices cannot share the classifiers, or a batch of theirs equally."""
    if self.cas is not None:
      self.cas.recipe.require_devices('cas.recipe')

  def real_images(self) -> RealImages:
    """Returns the images by which the checkpoint is chosen."""
    return RealImages(chosen_by=dict(parts(self, DatasetConfig)))

  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""
    return self.weights.stage(jobs)

  def trained_text(self, jobs: KnownJobs) -> Text:
    """Returns the prompts that the stage is conditioned on; those of `others` have the same shape."""
    return jobs.of(self.weights).trained_text(jobs)

  def kept_steps(self) -> tuple[int, ...] | None:
    """Returns None: what is chosen, and from what run, is known in the end."""
    return None


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Measures this worker's part of the checkpoints; returns the best for `Weights.open`, and all figures.

  Raises:
    Unfinished: the other workers have not measured theirs yet.
  """
  embedded = config.text.open(folder)
  text = embedded.states
  extractor = config.extractor.open(folder)
  weights = config.weights.open(folder)
  candidates = {(of.run, of.step): of for of in _candidates(config, folder, weights)}
  below, _ = load_cascade(config.below, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  samples = FixedSamples(below, text, config.seed, labels, indices, config.batch_size, folder.path)
  references = {'validation': observe_real(extractor, config.reference, weights.stage.size, folder)}
  trials = Trials(
    folder,
    weights.stage,
    lambda trial: config.sampler,
    lambda trial: TrainedStage(
      weights.stage, load_variables(candidates[trial['run'], trial['step']]), config.sampler
    ),
    samples,
    [len(labels)],
    extractor,
    references,
    embedded.class_names,
    config.cas,
  )
  names = [{'run': run, 'step': step} for run, step in candidates]
  trials.say_cost(names)
  curve = trials.measured(names, len(labels))
  samples.clean()
  row = min(curve, key=lambda row: loss(row, _FIGURES[config.choose]))
  best = candidates[row['run'], row['step']]
  if config.prune and is_first():
    best = _prune(weights, best)
  # what is large stays in the files of the trials
  curve = [{name: _brief(value) for name, value in row.items()} for row in curve]
  return best.handed_on | {'choose': config.choose, 'curve': curve, **provenance(extractor, references)}


def _brief(figure: Any) -> Any:
  """Returns a figure of a trial; of CAS, without what is told of each class."""
  if not isinstance(figure, dict):
    return figure
  return {name: value for name, value in figure.items() if name not in ('per_class', 'confusion')}


def _candidates(config: Config, folder: JobFolder, weights: StageWeights) -> list[StageWeights]:
  """Returns all that can be chosen, in the order of training: what other jobs hand on comes first."""
  others = [other.open(folder) for other in config.others]
  return [*others, *(weights._replace(step=step) for step in weights.steps)]


def _prune(weights: StageWeights, best: StageWeights) -> StageWeights:
  """Deletes the checkpoints of a run but the best, if it is of this run, and the last; returns the best."""
  is_of_run = best.run == weights.run
  kept = {weights.steps[-1], *([best.step] if is_of_run else [])}
  for step in set(weights.steps) - kept:
    delete_tree(weights.checkpoints / str(step))
  return best._replace(steps=tuple(sorted(kept))) if is_of_run else best
