"""classify: classifiers trained on real, synthetic or both -> accuracy on real test images.

Trained on synthetic images alone, that accuracy is the Classification Accuracy Score (Ravuri &
Vinyals, 2019).
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from imagenet_synth.core.config import build_tagged
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.writer import make_writer
from imagenet_synth.data.pipeline import ExampleSource, Images, Joined
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs.extractor import CLASSIFIERS
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.jobs.measure import real_images
from imagenet_synth.metrics import logits as metrics
from imagenet_synth.metrics.summary import mean_std
from imagenet_synth.train import classifier
from imagenet_synth.train.classifier import Recipe


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A training set: the real images or not, and the first `synthetic_num` of a generate job's."""
  real: bool
  synthetic: str | None = None
  synthetic_num: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
  """model, recipe: what is trained, and how. size: of the images. mixtures: name -> training set.
  real, test: splits of the real data. seeds: a run each."""
  model: dict[str, Any]
  recipe: Recipe
  size: int
  mixtures: dict[str, Mixture]
  real: DatasetConfig
  test: DatasetConfig
  seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Subject:
  """What CAS trains within a sweep: see Config."""
  model: dict[str, Any]
  recipe: Recipe
  test: DatasetConfig
  seeds: tuple[int, ...]


def run(config: Config, folder: Folder) -> dict[str, Any]:
  model = build_tagged(CLASSIFIERS, config.model, f'{folder.name}.model')
  test = real_images(config.test, config.size, folder)
  names = open_dataset(config.test, folder).class_names
  mixtures, runs = {}, []
  for name, mixture in config.mixtures.items():
    data, num_real, num_synthetic = _training_set(mixture, config, folder)
    results = []
    for seed in config.seeds:
      path = pathlib.Path('runs') / f'{name}-seed{seed}'
      results.append(_run(model, config.recipe, data, test, seed, folder.path / path, folder,
                          f'{folder.name} {name} seed {seed}'))
      runs.append({'path': str(path), 'mixture': name, 'seed': seed,
                   'channels': test[0].shape[-1]})
    mixtures[name] = {'num_real': num_real, 'num_synthetic': num_synthetic,
                      'synthetic': mixture.synthetic, **_summary(results)}
  return {'model': _title(config.model), 'size': config.size, 'mixtures': mixtures, 'runs': runs,
          'class_names': list(names), 'num_test': len(test[1])}


def score(subject: Subject, source: ExampleSource, size: int, path: pathlib.Path,
          folder: Folder) -> dict[str, Any]:
  """CAS of labelled images, brought to `size`; its runs stay under `path`."""
  model = build_tagged(CLASSIFIERS, subject.model, f'{folder.name}.cas.model')
  test = real_images(subject.test, size, folder)
  data = Images(source, size, lambda example: example['label'])
  return _summary([_run(model, subject.recipe, data, test, seed, path / f'cas-seed{seed}', folder,
                        f'{folder.name} CAS seed {seed}') for seed in subject.seeds])


def _training_set(mixture: Mixture, config: Config,
                  folder: Folder) -> tuple[Images | Joined, int, int]:
  """The images, and how many of them are real and synthetic."""
  label = lambda example: example['label']
  real = synthetic = None
  if mixture.real:
    real = Images(open_dataset(config.real, folder), config.size, label)
  if mixture.synthetic:
    shards = sorted((folder.input(mixture.synthetic) / str(config.size)).glob('*.tfrecord'))
    if not shards:
      raise InputError(f'{folder.name}: {mixture.synthetic} has no images of size {config.size}')
    source = ShardSource(shards)
    if mixture.synthetic_num is not None and mixture.synthetic_num > len(source):
      raise InputError(f'{folder.name}: {mixture.synthetic_num} images wanted of '
                       f'{mixture.synthetic}, which has {len(source)}')
    synthetic = Images(source, config.size, label, limit=mixture.synthetic_num)
  parts = [part for part in (real, synthetic) if part is not None]
  if not parts:
    raise InputError(f'{folder.name}: a mixture needs real images, synthetic ones, or both')
  data = parts[0] if len(parts) == 1 else Joined(parts)
  return data, len(real or ()), len(synthetic or ())


def _run(model: nn.Module, recipe: Recipe, data: Images | Joined,
         test: tuple[np.ndarray, np.ndarray], seed: int, path: pathlib.Path, folder: Folder,
         what: str) -> dict[str, Any]:
  """Trains one classifier and tests it; one that was tested before is not trained again."""
  if (path / 'metrics.json').exists():
    return read_json(path / 'metrics.json')
  path.mkdir(parents=True, exist_ok=True)
  variables = classifier.train(model, recipe, data, seed, path, folder.origin, make_writer, what)
  logits, labels = classifier.predict(model, variables, test[0]).logits, test[1]
  accuracy = metrics.accuracy(logits, labels, top=(1, 5))
  result = {'seed': seed, 'top_1': accuracy[1], 'top_5': accuracy[5],
            'calibration_error': metrics.expected_calibration_error(logits, labels),
            'per_class': metrics.per_class_accuracy(logits, labels).tolist(),
            'confusion': metrics.confusion_matrix(logits, labels).tolist()}
  write_json(path / 'metrics.json', result)
  return result


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Mean and deviation over seeds of each number; per class and confusion as means and sums."""
  summary = {key: mean_std([result[key] for result in results])._asdict()
             for key in ('top_1', 'top_5', 'calibration_error')}
  return summary | {
      'per_class': np.mean([result['per_class'] for result in results], axis=0).tolist(),
      'confusion': np.sum([result['confusion'] for result in results], axis=0).tolist()}


def _title(model: dict[str, Any]) -> str:
  return {'resnet': 'ResNet', 'vit': 'ViT'}[model['type']]
