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
from imagenet_synth.core.worker import Unfinished
from imagenet_synth.core.writer import make_writer
from imagenet_synth.data.pipeline import ExampleSource, Images, Joined
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs.extractor import CLASSIFIERS
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.metrics import logits as metrics
from imagenet_synth.metrics.summary import mean_std
from imagenet_synth.train import classifier
from imagenet_synth.train.classifier import Recipe

_TITLES = {'resnet': 'ResNet', 'vit': 'ViT'}


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A training set: the real images or not, and some of a generate job's.

  synthetic_num: how many, all if not given; or synthetic_times: as a multiple of the real ones. They are
  the first, so that classes keep their shares. synthetic_size: of the shards, from which they are reduced
  to the size wanted; if not given, the smallest that is large enough.
  """

  real: bool
  synthetic: str | None = None
  synthetic_num: int | None = None
  synthetic_times: float | None = None
  synthetic_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
  """model, recipe: what is trained, and how. size: of the images. mixtures: name -> training set.
  real, test: splits of the real data. seeds: a run each. title: the model's name in the report.
  loaded_size: images are brought to this size first, and parts of `size` cut out of it: random ones in
  training, the centre in the test; `size` if not given. init: a classify job with the same mixtures and
  seeds, whose weights training starts from; it may be of another size."""

  model: dict[str, Any]
  recipe: Recipe
  size: int
  mixtures: dict[str, Mixture]
  real: DatasetConfig
  test: DatasetConfig
  seeds: tuple[int, ...]
  title: str | None = None
  loaded_size: int | None = None
  init: str | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
  """What CAS trains within a sweep: see Config."""

  model: dict[str, Any]
  recipe: Recipe
  test: DatasetConfig
  seeds: tuple[int, ...]


def run(config: Config, folder: Folder) -> dict[str, Any]:
  work = _Work(config, folder)
  runs = [(name, seed) for name in config.mixtures for seed in config.seeds]
  mine = folder.worker.part(runs)
  for name in config.mixtures:
    work.train_missing(name, [seed for mixture, seed in mine if mixture == name])
  missing = [run for run in runs if not work.is_done(*run)]
  if missing:
    raise Unfinished(
      f'{folder.name}: worker {folder.worker.index} of {folder.worker.count} has made its '
      f'part; {len(missing)} of {len(runs)} runs are left to the others'
    )
  channels = work.channels()
  return {
    'model': config.title or _TITLES[config.model['type']],
    'size': config.size,
    'mixtures': {name: work.summary(name) for name in config.mixtures},
    'runs': [
      {'path': str(work.path(*run)), 'mixture': run[0], 'seed': run[1], 'channels': channels} for run in runs
    ],
    'class_names': list(work.test.class_names),
    'num_test': len(work.test),
  }


def score(
  subject: Subject, source: ExampleSource, size: int, path: pathlib.Path, folder: Folder
) -> dict[str, Any]:
  """CAS of labelled images, brought to `size`; its runs stay under `path`."""
  model = build_tagged(CLASSIFIERS, subject.model, f'{folder.name}.cas.model')
  data, test = (_labelled(of, size) for of in (source, open_dataset(subject.test, folder)))
  return _summary(
    [
      _run(
        model,
        subject.recipe,
        data,
        test,
        size,
        seed,
        path / f'cas-seed{seed}',
        folder,
        f'{folder.name} CAS seed {seed}',
      )
      for seed in subject.seeds
    ]
  )


class _Work:
  """The runs of a job."""

  def __init__(self, config: Config, folder: Folder):
    self._config, self._folder = config, folder
    self._loaded_size = config.loaded_size or config.size
    if self._loaded_size < config.size:
      raise InputError(
        f'config: {folder.name}.loaded_size is {self._loaded_size}, less than size {config.size}'
      )
    self._model = build_tagged(CLASSIFIERS, config.model, f'{folder.name}.model')
    self.test = open_dataset(config.test, folder)
    self._sources = {name: self._training_set(mixture) for name, mixture in config.mixtures.items()}

  def path(self, mixture: str, seed: int) -> pathlib.Path:
    """Below the job's folder."""
    return pathlib.Path('runs') / f'{mixture}-seed{seed}'

  def is_done(self, mixture: str, seed: int) -> bool:
    return (self._folder.path / self.path(mixture, seed) / 'metrics.json').exists()

  def channels(self) -> int:
    return self.test[0]['image'].shape[-1]

  def train_missing(self, mixture: str, seeds: Sequence[int]) -> None:
    seeds = [seed for seed in seeds if not self.is_done(mixture, seed)]
    if not seeds:
      return
    # only now: they may be all images, in memory
    parts = [_labelled(source, self._loaded_size, num) for source, num in self._sources[mixture]]
    data = parts[0] if len(parts) == 1 else Joined(parts)
    test = _labelled(self.test, self._loaded_size)
    for seed in seeds:
      _run(
        self._model,
        self._config.recipe,
        data,
        test,
        self._config.size,
        seed,
        self._folder.path / self.path(mixture, seed),
        self._folder,
        f'{self._folder.name} {mixture} seed {seed}',
        self._start(mixture, seed),
      )

  def summary(self, mixture: str) -> dict[str, Any]:
    of = self._config.mixtures[mixture]
    nums = [num for _, num in self._sources[mixture]]
    results = [
      read_json(self._folder.path / self.path(mixture, seed) / 'metrics.json') for seed in self._config.seeds
    ]
    return {
      'num_real': nums[0] if of.real else 0,
      'num_synthetic': nums[-1] if of.synthetic else 0,
      'synthetic': of.synthetic,
      'synthetic_size': of.synthetic_size,
      **_summary(results),
    }

  def _start(self, mixture: str, seed: int) -> Any:
    """The variables that training starts from; None for random ones."""
    if self._config.init is None:
      return None
    before = self._folder.input(self._config.init)
    size = read_json(before / 'config.json')['size']
    path = before / self.path(mixture, seed)
    if not path.exists():
      raise InputError(f'{self._folder.name}: {self._config.init} has no run {path.name} to start from')
    return classifier.load(self._model, size, self.channels(), path)

  def _training_set(self, mixture: Mixture) -> list[tuple[ExampleSource, int]]:
    """Its sources, real images first, and how many of each are taken."""
    config, folder, parts = self._config, self._folder, []
    if mixture.real:
      real = open_dataset(config.real, folder)
      parts.append((real, len(real)))
    if mixture.synthetic:
      shards = sorted(folder.input(mixture.synthetic).glob(f'{self._shard_size(mixture)}/*.tfrecord'))
      source = ShardSource(shards)
      num = len(source) if mixture.synthetic_num is None else mixture.synthetic_num
      if mixture.synthetic_times is not None:
        num = round(mixture.synthetic_times * len(open_dataset(config.real, folder)))
      if num > len(source):
        raise InputError(
          f'{folder.name}: {num} images wanted of {mixture.synthetic}, which has {len(source)}'
        )
      parts.append((source, num))
    if not parts:
      raise InputError(f'{folder.name}: a mixture needs real images, synthetic ones, or both')
    return parts

  def _shard_size(self, mixture: Mixture) -> int:
    """Images of at least the size wanted, the smallest of these: they are reduced, never enlarged."""
    sizes = read_json(self._folder.input(mixture.synthetic) / 'manifest.json')['sizes']
    wanted = mixture.synthetic_size
    large = [size for size in sizes if size >= self._loaded_size and wanted in (None, size)]
    if not large:
      raise InputError(
        f'{self._folder.name}: {mixture.synthetic} has no images of size '
        f'{wanted or f"{self._loaded_size} or more"}, it has {sizes}'
      )
    return min(large)


def _labelled(source: ExampleSource, size: int, num: int | None = None) -> Images:
  return Images(source, size, lambda example: example['label'], limit=num)


def _run(
  model: nn.Module,
  recipe: Recipe,
  data: Images | Joined,
  test: Images,
  size: int,
  seed: int,
  path: pathlib.Path,
  folder: Folder,
  what: str,
  start: Any = None,
) -> dict[str, Any]:
  """Trains one classifier and tests it; one that was tested before is not trained again."""
  if (path / 'metrics.json').exists():
    return read_json(path / 'metrics.json')
  path.mkdir(parents=True, exist_ok=True)
  variables = classifier.train(model, recipe, data, size, seed, path, folder.origin, make_writer, what, start)
  logits, labels = classifier.predict_labelled(model, variables, test, size)
  accuracy = metrics.accuracy(logits, labels, top=(1, 5))
  result = {
    'seed': seed,
    'top_1': accuracy[1],
    'top_5': accuracy[5],
    'calibration_error': metrics.expected_calibration_error(logits, labels),
    'per_class': metrics.per_class_accuracy(logits, labels).tolist(),
    'confusion': metrics.confusion_matrix(logits, labels).tolist(),
  }
  write_json(path / 'metrics.json', result)
  return result


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Mean and deviation over seeds of each number; per class and confusion as means and sums."""
  summary = {
    key: mean_std([result[key] for result in results])._asdict()
    for key in ('top_1', 'top_5', 'calibration_error')
  }
  return summary | {
    'per_class': np.mean([result['per_class'] for result in results], axis=0).tolist(),
    'confusion': np.sum([result['confusion'] for result in results], axis=0).tolist(),
  }
