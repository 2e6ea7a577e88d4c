"""The import_extractor job: a published network becomes one that other jobs take features and logits from."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
from etils import epath

from imagenet_synth.core.checkpoint import save_ema
from imagenet_synth.core.files import tree_hash, weights_path
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.weights import inception
from imagenet_synth.weights.public import PUBLIC_NETWORKS

# an imported network has one checkpoint, of no training step
_STEP = 0

NetworkName = Literal[
  'inception',
  'dinov2_vits14',
  'dinov2_vitb14',
  'dinov2_vitl14',
  'resnet50',
  'resnet101',
  'resnet152',
  'vit_s16',
  'vit_b16',
  'vit_l16',
  'deit_s16',
  'deit_b16',
]

LOADERS: dict[str, Callable[[str], dict[str, Any]]] = {
  'inception': lambda path: {'params': inception.load(path)},
  **{name: network.load for name, network in PUBLIC_NETWORKS.items()},
}
"""What reads the published weights of each network: a file's path -> variables."""


@dataclasses.dataclass(frozen=True)
class Config:
  """Which network is imported, and where its weights are."""

  # the network: 'inception' is FID's Inception-v3, 'dinov2_vitl14' that of FD-DINOv2; resnet, vit and deit
  # are classifiers of ImageNet that timm publishes
  network: NetworkName
  # the safetensors file of its weights
  path: str

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    return {'path': weights_path(self.path)}


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Reads the published weights, writes them as a checkpoint, and returns what `ExtractorReference` reads."""
  variables = LOADERS[config.network](weights_path(config.path))
  save_ema(folder.path / 'checkpoints', _STEP, variables, folder.origin)
  return {
    'extractor_kind': 'inception' if config.network == 'inception' else 'public',
    'network': config.network,
    'step': _STEP,
    'source': config.path,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(variables)),
    'checkpoint_hash': tree_hash(variables),
  }
