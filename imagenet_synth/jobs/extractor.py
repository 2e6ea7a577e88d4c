"""The networks whose features and logits FID, IS, precision and recall are made of."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import build_tagged
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, tree_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.parallel import map_rows, over_devices
from imagenet_synth.jobs.inputs import local_replicas
from imagenet_synth.models.inception import InceptionV3
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier

CLASSIFIERS = {'resnet': ResNet, 'vit': ViT}

_INCEPTION_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A network and its view of images.

  described: name and hash of the weights, to stand beside each figure. preprocessing: how images come to
  the network's size. forward: uint8 [N, S, S, C] -> Outputs.
  """

  described: str
  preprocessing: str
  forward: Callable[[np.ndarray], Outputs]


def load_extractor(name: str, folder: Folder) -> Extractor:
  """The first run of a classify job, or Inception-v3 as an import_weights job has brought it."""
  path = folder.input(name)
  config = read_json(path / 'config.json')
  if config['job'] == 'import_weights' and config['kind'] == 'inception':
    return _inception(path)
  if config['job'] == 'classify':
    return _classifier(name, config, path)
  raise InputError(
    f'{folder.name}: extractor {name} is neither a classify job nor an import_weights job of kind inception'
  )


def _classifier(name: str, config: dict[str, Any], path: pathlib.Path) -> Extractor:
  model, size = build_tagged(CLASSIFIERS, config['model'], f'{name}.model'), config['size']
  run = read_json(path / 'job.json')['result']['runs'][0]
  variables = classifier.load(model, size, run['channels'], path / run['path'])
  enlarged = jax.jit(lambda x: images.to_uint8(images.upsample(images.to_float(x), size)))

  def forward(pictures):
    pictures = _with_channels(pictures, run['channels'])
    if pictures.shape[1] != size:
      pictures = np.asarray(enlarged(pictures))
    return classifier.predict(model, variables, pictures)

  return Extractor(
    f'{name} at {size}x{size} (weights {tree_hash(variables)})',
    f'bilinear to {size}x{size}, rounded to uint8',
    forward,
  )


def _inception(path: pathlib.Path) -> Extractor:
  like = jax.eval_shape(InceptionV3().init, jax.random.key(0), np.zeros((1, 299, 299, 3), np.uint8))
  variables = load_ema(path / 'checkpoints', 0, like)
  described = f'Inception-v3 of FID (weights {tree_hash(variables)})'
  replicas, mapped = local_replicas(variables), over_devices(_inception_outputs)

  def forward(pictures):
    return map_rows(mapped, replicas, _with_channels(pictures, 3), _INCEPTION_BATCH)

  return Extractor(described, "bilinear to 299x299 as TensorFlow 1's graph has it, not rounded", forward)


def _with_channels(pictures: np.ndarray, num_channels: int) -> np.ndarray:
  """uint8 [..., 1 or 3] -> [..., num_channels]: grey as RGB, or the luminance of RGB (Rec. 601)."""
  if pictures.shape[-1] == num_channels:
    return pictures
  if num_channels == 3:
    return pictures.repeat(3, axis=-1)
  return np.round(pictures @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)


def _inception_outputs(variables: Any, pictures: jax.Array) -> Outputs:
  outputs = InceptionV3().apply(variables, pictures)
  return Outputs(outputs['logits_unbiased'], outputs['2048'])
