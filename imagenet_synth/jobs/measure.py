"""Measuring images with a feature extractor: FID and Inception Score, as every job does it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import build, build_tagged
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, tree_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.pipeline import Images
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.logits import inception_score
from imagenet_synth.models.inception import InceptionV3
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier

_INCEPTION_BATCH = 64
_REAL_BATCH = 2048

CLASSIFIERS = {'resnet': ResNet, 'vit': ViT}


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A classifier whose pooled features and logits FID and IS are made of.

  described: identifies it beside each figure. forward: uint8 [N, S, S, C] -> Outputs.
  """
  described: str
  forward: Callable[[np.ndarray], Outputs]


def load_extractor(name: str, folder: Folder) -> Extractor:
  """The first run of a classify job, or Inception-v3 as an import_weights job has brought it."""
  path = folder.input(name)
  config = read_json(path / 'config.json')
  if config['job'] == 'import_weights' and config['kind'] == 'inception':
    return _inception(path)
  if config['job'] == 'classify':
    return _classifier(name, config, path)
  raise InputError(f'{folder.name}: extractor {name} is neither a classify job nor an import_weights '
                   'job of kind inception')


def _classifier(name: str, config: dict[str, Any], path: pathlib.Path) -> Extractor:
  model, size = build_tagged(CLASSIFIERS, config['model'], f'{name}.model'), config['size']
  recipe = build(classifier.Recipe, config['recipe'], f'{name}.recipe')
  run = read_json(path / 'job.json')['result']['runs'][0]
  variables = classifier.load(model, size, run['channels'], path / run['path'], recipe.num_steps)
  enlarged = jax.jit(lambda x: images.to_uint8(images.upsample(images.to_float(x), size)))

  def forward(pictures):
    if pictures.shape[1] != size:
      pictures = np.asarray(enlarged(pictures))
    return classifier.predict(model, variables, pictures)

  return Extractor(f'{name} at {size}x{size} (weights {tree_hash(variables)})', forward)


def _inception(path: pathlib.Path) -> Extractor:
  like = jax.eval_shape(InceptionV3().init, jax.random.key(0), np.zeros((1, 299, 299, 3), np.uint8))
  variables = load_ema(path / 'checkpoints', 0, like)
  network = jax.jit(InceptionV3().apply)

  def forward(pictures):
    if pictures.shape[-1] == 1:
      pictures = pictures.repeat(3, axis=-1)
    parts = []
    for start in range(0, len(pictures), _INCEPTION_BATCH):
      rows = np.arange(start, min(start + _INCEPTION_BATCH, len(pictures)))
      outputs = network(variables, pictures[np.resize(rows, _INCEPTION_BATCH)])
      parts.append([np.asarray(outputs[key])[:len(rows)] for key in ('logits_unbiased', '2048')])
    return Outputs(*(np.concatenate(column) for column in zip(*parts)))

  return Extractor(f'Inception-v3 of FID (weights {tree_hash(variables)})', forward)


def real_images(dataset: DatasetConfig, size: int, folder: Folder) -> tuple[np.ndarray, np.ndarray]:
  """All images of a labelled split, uint8 [N, size, size, C], and labels int32 [N]."""
  source = open_dataset(dataset, folder)
  return Images(source, size, lambda example: example['label']).all()


@dataclasses.dataclass(frozen=True)
class References:
  """Real splits that generated images are compared with."""
  train: DatasetConfig
  validation: DatasetConfig

  def moments(self, extractor: Extractor, size: int, folder: Folder) -> dict[str, frechet.Moments]:
    """Moments of each split, its images brought to `size` first, as the generated ones are."""
    return {split: moments_of(extractor, getattr(self, split), size, folder)
            for split in ('train', 'validation')}


def moments_of(extractor: Extractor, dataset: DatasetConfig, size: int,
               folder: Folder) -> frechet.Moments:
  """Of all images of a split, brought to `size`; never all of them in memory."""
  moments = None
  data = Images(open_dataset(dataset, folder), size, lambda example: 0, cache=False)
  with progress(len(data), f'{folder.name} {dataset.split} {size}x{size}') as bar:
    for start in range(0, len(data), _REAL_BATCH):
      pictures, _ = data.take(np.arange(start, min(start + _REAL_BATCH, len(data))))
      features = extractor.forward(pictures).features
      moments = frechet.update(moments or frechet.Moments.zero(features.shape[1]), features)
      bar.update(len(pictures))
  return moments


def measure(extractor: Extractor, pictures: np.ndarray, references: dict[str, frechet.Moments],
            num_splits: int = 10) -> dict[str, Any]:
  """FID against each reference, and Inception Score, of uint8 [N, S, S, C] in class-cyclic order."""
  outputs = extractor.forward(pictures)
  moments = frechet.update(frechet.Moments.zero(outputs.features.shape[1]), outputs.features)
  mean, std = inception_score(outputs.logits, num_splits)
  result = {f'fid_{split}': frechet.frechet_distance(moments, reference)
            for split, reference in references.items()}
  result |= {'is': mean, 'is_std': std, 'num_samples': len(pictures)}
  fewest = min([moments.count] + [reference.count for reference in references.values()])
  warning = frechet.sample_warning(fewest)
  return result | ({'warning': warning} if warning else {})
