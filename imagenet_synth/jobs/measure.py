"""Measuring images with a feature extractor, as every job does it: FID, IS, precision and recall."""

import dataclasses
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import build, build_tagged
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json, tree_hash, write_atomic
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.pipeline import Images
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.logits import inception_score
from imagenet_synth.metrics.manifold import precision_recall
from imagenet_synth.models.inception import InceptionV3
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier

_INCEPTION_BATCH = 64
# images in memory at a time, and samples that precision and recall are of (Kynkäänniemi et al.: 50K)
_BATCH, _MANIFOLD = 2048, 10_000
# those of all real training images would take gigabytes, and no one asks for their Inception Score
_REAL_LOGITS = 50_000

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


class Observed(NamedTuple):
  """What an extractor says of a set of images.

  moments: of all features. features: [n, D], the first of them, up to `_MANIFOLD`. logits: [N, K].
  """
  moments: frechet.Moments
  features: np.ndarray
  logits: np.ndarray


def observe(extractor: Extractor, pictures: Iterable[np.ndarray]) -> Observed:
  """Of batches uint8 [n, S, S, C], which need not be in memory together."""
  moments, kept, logits = None, [], []
  for batch in pictures:
    outputs = extractor.forward(batch)
    moments = frechet.update(moments or frechet.Moments.zero(outputs.features.shape[1]),
                             outputs.features)
    kept.append(outputs.features[:max(_MANIFOLD - sum(map(len, kept)), 0)])
    logits.append(outputs.logits)
  return Observed(moments, np.concatenate(kept), np.concatenate(logits))


def in_batches(data: Images, what: str) -> Iterator[np.ndarray]:
  """uint8 [n, S, S, C] at a time, in order."""
  with progress(len(data), what) as bar:
    for start in range(0, len(data), _BATCH):
      pictures, _ = data.take(np.arange(start, min(start + _BATCH, len(data))))
      yield pictures
      bar.update(len(pictures))


@dataclasses.dataclass(frozen=True)
class References:
  """Real splits that generated images are compared with."""
  train: DatasetConfig
  validation: DatasetConfig

  def observed(self, extractor: Extractor, size: int, folder: Folder) -> dict[str, Observed]:
    """Each split, its images brought to `size` first, as the generated ones are."""
    return {split: observe_real(extractor, getattr(self, split), size, folder)
            for split in ('train', 'validation')}


def observe_real(extractor: Extractor, dataset: DatasetConfig, size: int,
                 folder: Folder) -> Observed:
  """All images of a split, brought to `size`; computed once and kept in WORKDIR/references."""
  source = open_dataset(dataset, folder)
  key = json_hash([extractor.described, dataclasses.asdict(dataset), source.version, size])
  path = folder.workdir / 'references' / f'{key}.npz'
  if not path.exists():
    data = Images(source, size, lambda example: 0, cache=False)
    what = f'{folder.name} {dataset.split} {size}x{size}'
    moments, features, logits = observe(extractor, in_batches(data, what))
    file = io.BytesIO()
    np.savez(file, mean=moments.mean, scatter=moments.scatter, count=moments.count,
             features=features, logits=logits[:_REAL_LOGITS])
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, file.getvalue())
  with np.load(path) as kept:
    moments = frechet.Moments(int(kept['count']), kept['mean'], kept['scatter'])
    return Observed(moments, kept['features'], kept['logits'])


def measure(observed: Observed, references: dict[str, Observed],
            num_splits: int = 10) -> dict[str, Any]:
  """FID against each reference, precision and recall against the first, and Inception Score.

  The images must be in class-cyclic or random order.
  """
  mean, std = inception_score(observed.logits, num_splits)
  result = {f'fid_{split}': frechet.frechet_distance(observed.moments, reference.moments)
            for split, reference in references.items()}
  real = next(iter(references.values())).features
  num = min(len(real), len(observed.features))
  result |= precision_recall(real[:num], observed.features[:num])._asdict()
  result |= {'is': mean, 'is_std': std, 'num_samples': observed.moments.count,
             'num_manifold': num}
  fewest = min([observed.moments.count]
               + [reference.moments.count for reference in references.values()])
  warning = frechet.sample_warning(fewest)
  return result | ({'warning': warning} if warning else {})


def real_images(dataset: DatasetConfig, size: int, folder: Folder) -> tuple[np.ndarray, np.ndarray]:
  """All images of a labelled split, uint8 [N, size, size, C], and labels int32 [N]."""
  source = open_dataset(dataset, folder)
  return Images(source, size, lambda example: example['label']).all()
