"""The select job: of a training run's checkpoints, the one whose samples have the best FID is chosen."""

import dataclasses
import shutil
from typing import Any

from imagenet_synth.cascade import SamplerSettings, Stage
from imagenet_synth.core.config import Count, Seed, parts
from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.evaluation.extractors import ExtractorReference
from imagenet_synth.evaluation.fixed_samples import FixedSamples
from imagenet_synth.evaluation.measuring import measure, observe, provenance
from imagenet_synth.evaluation.reference_statistics import observe_real
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import (
  StageUse,
  Weights,
  check_cascade,
  check_stage,
  load_cascade,
  load_stage,
)
from imagenet_synth.inputs.text import Text


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
  # images sampled at a time, over all devices
  batch_size: Count
  # the stages that feed the one that is compared, base first
  below: tuple[StageUse, ...] = ()
  # whether the other checkpoints are deleted in the end, except for the last
  prune: bool = False
  # the seed of the samples
  seed: Seed = 0

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stages, the text and the data don't fit each other."""
    below = check_cascade(self.below, self.text, jobs, 'below')
    use = StageUse(self.weights, self.sampler)
    check_stage(use, below[-1] if below else None, self.text, jobs, '')
    self.text.require_classes(None, jobs, 'text')
    self.reference.contents(jobs.workdir, 'reference')

  def real_images(self) -> RealImages:
    """Returns the images by which the checkpoint is chosen."""
    return RealImages(chosen_by=dict(parts(self, DatasetConfig)))

  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""
    return self.weights.stage(jobs)

  def trained_text(self, jobs: KnownJobs) -> Text:
    """Returns the prompts that the stage is conditioned on."""
    return jobs.of(self.weights).trained_text(jobs)


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Samples and measures each checkpoint; returns the best one for `Weights.open`, and the figures of all."""
  text = config.text.open(folder).states
  extractor = config.extractor.open(folder)
  weights = config.weights.open(folder)
  below, _ = load_cascade(config.below, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  samples = FixedSamples(below, text, config.seed, labels, indices, config.batch_size, folder.path)
  path = folder.path / 'curve.json'
  curve = read_json(path) if path.exists() else []
  use = StageUse(config.weights, config.sampler)
  references = {'validation': observe_real(extractor, config.reference, weights.stage.size, folder)}
  num_images = len(labels) * len(weights.steps)
  with progress(num_images, folder.name, start=len(labels) * len(curve)) as bar:
    for step in weights.steps[len(curve) :]:
      trained, _ = load_stage(use, folder, step)
      chunks = samples.chunks(0, len(labels))
      observed = observe(extractor, (samples.draw(trained, rows, bar.update) for rows in chunks))
      curve.append({'step': step, **measure(observed, references)})
      write_json(path, curve)
  samples.clean()
  best = min(curve, key=lambda row: row['fid_validation'])['step']
  kept = weights.steps
  if config.prune:
    kept = tuple(step for step in weights.steps if step in (best, weights.steps[-1]))
    for step in set(weights.steps) - set(kept):
      shutil.rmtree(weights.checkpoints / str(step), ignore_errors=True)
  selected = weights._replace(step=best, steps=kept)
  return selected.handed_on | {'curve': curve, **provenance(extractor, references)}
