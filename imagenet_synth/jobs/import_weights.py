"""The import_weights job: the weights of a published U-Net of DeepFloyd IF become those of a stage."""

import dataclasses
from typing import Any

import jax
from etils import epath

from imagenet_synth.cascade.diffusion_stage import Stage
from imagenet_synth.core.checkpoint import save_ema
from imagenet_synth.core.config import Invalid
from imagenet_synth.core.files import tree_hash, weights_path
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageWeights
from imagenet_synth.inputs.text import Text
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.weights import deepfloyd

# an imported run has one checkpoint, of no training step
_STEP = 0


@dataclasses.dataclass(frozen=True)
class Config:
  """Which weights are imported, and the stage that they are of."""

  # the folder of the published U-Net, with its config.json and safetensors files
  path: str
  # the stage that has its sizes, with a network of type 'deepfloyd'
  stage: Stage
  # the embed job whose text the stage is conditioned on
  text: Text

  def validate(self) -> None:
    """Raises `Invalid` if the stage cannot be one of DeepFloyd IF's."""
    if not isinstance(self.stage.network, IFUNet):
      raise Invalid('stage.network.type', "must be 'deepfloyd', whose weights are imported")
    if not self.stage.learned_variance:
      raise Invalid(
        'stage.learned_variance', 'must be True, as the published networks have learned a variance'
      )

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    return {'path': weights_path(self.path)}

  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""
    return self.stage

  def trained_text(self, jobs: KnownJobs) -> Text:
    """Returns the prompts that the stage is conditioned on."""
    return self.text

  def kept_steps(self) -> tuple[int, ...] | None:
    """Returns the step of the one checkpoint."""
    return (0,)


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Reads the published weights, writes them as a checkpoint, and returns it for `Weights.open`."""
  text_size = config.text.open(folder).shape[1]
  stage = config.stage
  assert isinstance(stage.network, IFUNet)
  in_channels = stage.channels * (1 if stage.low_res_size is None else 2)
  variables = {'params': deepfloyd.load(weights_path(config.path), stage.network, in_channels, text_size)}
  save_ema(folder.path / 'checkpoints', _STEP, variables, folder.origin)
  weights = StageWeights(
    folder.path, folder.name, folder.config['job'], _STEP, (_STEP,), folder.config['stage'], text_size
  )
  return weights.handed_on | {
    'source': config.path,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(variables)),
    'checkpoint_hash': tree_hash(variables),
  }
