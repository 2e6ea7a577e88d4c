"""The pretrain job: a stage of the cascade is trained from random weights."""

import dataclasses
from typing import Any

from imagenet_synth.cascade.diffusion_stage import Stage
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.train.stage import Training, train_stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training):
  """What is trained, on what, and how long."""

  # the stage that is trained
  stage: Stage

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stage, the data and the text don't fit each other."""
    self.check_stage(self.stage, jobs)

  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""
    return self.stage


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Trains the stage, and returns the last checkpoint for `Weights.open`."""
  section = folder.config['stage']
  return train_stage(config, section, config.stage, lambda trainer: trainer.init(config.seed), folder)
