"""Measuring images with a feature extractor: FID and Inception Score, as every job does it."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from imagenet_synth.core import images
from imagenet_synth.core.config import build, build_tagged
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, tree_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.data.pipeline import Images
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.logits import inception_score
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier

CLASSIFIERS = {'resnet': ResNet, 'vit': ViT}


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A trained classifier whose pooled features and logits stand for Inception's.

  name, hash: identify it beside each figure. Images are enlarged to `size` bilinearly first.
  """
  name: str
  hash: str
  size: int
  model: nn.Module
  variables: Any

  @property
  def described(self) -> str:
    return f'{self.name} at {self.size}x{self.size} (weights {self.hash})'

  def __call__(self, pictures: np.ndarray) -> Outputs:
    """uint8 [N, S, S, C] -> logits [N, K], features [N, D]."""
    if pictures.shape[1] != self.size:
      resized = jax.jit(lambda x: images.to_uint8(images.upsample(images.to_float(x), self.size)))
      pictures = np.asarray(resized(pictures))
    return classifier.predict(self.model, self.variables, pictures)

  def moments(self, pictures: np.ndarray) -> frechet.Moments:
    features = self(pictures).features
    return frechet.update(frechet.Moments.zero(features.shape[1]), features)


def load_extractor(name: str, folder: Folder) -> Extractor:
  """The first run of a finished classify job."""
  path = folder.input(name)
  config, result = (read_json(path / file) for file in ('config.json', 'job.json'))
  if config['job'] != 'classify':
    raise InputError(f'{folder.name}: extractor {name} is not a classify job')
  model = build_tagged(CLASSIFIERS, config['model'], f'{name}.model')
  recipe = build(classifier.Recipe, config['recipe'], f'{name}.recipe')
  run = result['result']['runs'][0]
  variables = classifier.load(model, config['size'], run['channels'], path / run['path'],
                              recipe.num_steps)
  return Extractor(name, tree_hash(variables), config['size'], model, variables)


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
    return {split: extractor.moments(real_images(getattr(self, split), size, folder)[0])
            for split in ('train', 'validation')}


def measure(extractor: Extractor, pictures: np.ndarray, references: dict[str, frechet.Moments],
            num_splits: int = 10) -> dict[str, Any]:
  """FID against each reference, and Inception Score, of uint8 [N, S, S, C] in class-cyclic order."""
  outputs = extractor(pictures)
  moments = frechet.update(frechet.Moments.zero(outputs.features.shape[1]), outputs.features)
  mean, std = inception_score(outputs.logits, num_splits)
  result = {f'fid_{split}': frechet.frechet_distance(moments, reference)
            for split, reference in references.items()}
  result |= {'is': mean, 'is_std': std, 'num_samples': len(pictures)}
  fewest = min([moments.count] + [reference.count for reference in references.values()])
  warning = frechet.sample_warning(fewest)
  return result | ({'warning': warning} if warning else {})
