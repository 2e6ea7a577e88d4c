"""The finetune job: a stage of the cascade is trained on, from trained weights."""

import dataclasses
from typing import Any

from imagenet_synth.cascade.diffusion_stage import Stage
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import Weights
from imagenet_synth.train.stage import Training, train_stage
from imagenet_synth.train.state import Trainer, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training):
  """What training starts from, on what it goes on, and how long."""

  # the pretrain, finetune, import_weights or select job whose weights training starts from
  init: Weights

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stage, the data and the text don't fit each other."""
    self.init.require_text(self.text, jobs, 'text')
    self.check_stage(self.init.stage(jobs), jobs)

  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""
    return self.init.stage(jobs)


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Trains the stage, and returns the last checkpoint for `Weights.open`."""
  start = config.init.open(folder)

  def fresh(trainer: Trainer) -> TrainState:
    # the averaged weights, laid out as training has them
    averaged = load_ema(start.checkpoints, start.step, {'params': trainer.like().params})
    return trainer.start_from(averaged, config.seed)

  return train_stage(config, start.section, start.stage, fresh, folder)
