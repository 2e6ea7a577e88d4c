"""The import_extractor job: a published network becomes one that other jobs take features and logits from."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax

from imagenet_synth.core.checkpoint import save_ema
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.weights import inception

# an imported network has one checkpoint, of no training step
_STEP = 0

NetworkName = Literal['inception']

LOADERS: dict[NetworkName, Callable[[str], dict[str, Any]]] = {'inception': inception.load}
"""What reads the published weights of each network: a file's path -> params."""


@dataclasses.dataclass(frozen=True)
class Config:
  """Which network is imported, and where its weights are."""

  # the network: 'inception' is FID's Inception-v3
  network: NetworkName
  # the safetensors file of its weights
  path: str

  def files(self) -> dict[str, str]:
    """Returns the files that must be there, by their dotted key."""
    return {'path': self.path}


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Reads the published weights, writes them as a checkpoint, and returns what `ExtractorReference` reads."""
  variables = {'params': LOADERS[config.network](config.path)}
  save_ema(folder.path / 'checkpoints', _STEP, variables, folder.origin)
  return {
    'extractor_kind': config.network,
    'step': _STEP,
    'source': config.path,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(variables)),
    'checkpoint_hash': tree_hash(variables),
  }
