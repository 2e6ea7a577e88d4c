"""import_weights: weights that others have published -> a checkpoint that the other jobs take."""

import dataclasses
from typing import Any, Literal

import jax

from imagenet_synth.core.checkpoint import save_ema
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.jobs.inputs import StageConfig, load_text, make_stage
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.weights import deepfloyd, inception

# an imported run has one checkpoint, of no training step
_STEP = 0


@dataclasses.dataclass(frozen=True)
class Config:
  """kind: 'deepfloyd', a U-Net of IF as the `stage` of that size, conditioned on what the embed job
  `text` has written; or 'inception', FID's Inception-v3, an extractor. path: the file or folder."""

  kind: Literal['deepfloyd', 'inception']
  path: str
  stage: StageConfig | None = None
  text: str | None = None


def run(config: Config, folder: Folder) -> dict[str, Any]:
  params = inception.load(config.path) if config.kind == 'inception' else _deepfloyd(config, folder)
  variables = {'params': params}
  save_ema(folder.path / 'checkpoints', _STEP, variables, folder.origin)
  return {
    'step': _STEP,
    'checkpoints': [_STEP],
    'source': config.path,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(params)),
    'checkpoint_hash': tree_hash(variables),
  }


def _deepfloyd(config: Config, folder: Folder) -> dict[str, Any]:
  if config.stage is None or config.text is None:
    raise InputError(f'config: {folder.name} needs stage and text, as kind is deepfloyd')
  text = load_text(config.text, folder)
  stage = make_stage(config.stage, text.shape, f'{folder.name}.stage')
  if not isinstance(stage.network, IFUNet) or not stage.learned_variance:
    raise InputError(
      f"config: {folder.name}.stage needs a network of type 'deepfloyd' and learned_variance=True"
    )
  in_channels = stage.channels * (1 if stage.low_res_size is None else 2)
  return deepfloyd.load(config.path, stage.network, in_channels, stage.text_size)
