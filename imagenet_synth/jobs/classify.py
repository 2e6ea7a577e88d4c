"""The classify job: classifiers are trained on real or synthetic images or both, and tested on real ones.

Trained on synthetic images alone, their accuracy is the Classification Accuracy Score (Ravuri & Vinyals,
2019).
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from imagenet_synth.core.config import Count, Distinct, Invalid, NotEmpty, Positive, Reference, Seed
from imagenet_synth.core.devices import require_batch_size
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import Joined
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.source import Contents, Examples
from imagenet_synth.evaluation.cas import Experiment, labelled, require_image_size, summary
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.predictions import Predictions, load_predictions
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.models.registry import Classifier, for_classes
from imagenet_synth.train import classifier
from imagenet_synth.train.metric_writers import WriterName
from imagenet_synth.train.recipe import Recipe


class TrainedClassifiers(NamedTuple):
  """The runs of another classify job."""

  # height and width of the images that the networks see
  size: int
  # the folder of each run, by its name 'MIXTURE-seedSEED'
  runs: dict[str, pathlib.Path]


class TrainedClassifiersReference(Reference):
  """A reference to the classifiers that another classify job has trained."""

  kinds: ClassVar[tuple[str, ...]] = ('classify',)

  def open(self, folder: JobFolder) -> TrainedClassifiers:
    """Returns the runs of the job.

    Raises:
      InputError: the job has not been run to its end.
    """
    path, result = folder.input(self.name)
    runs = {pathlib.Path(run['path']).name: path / run['path'] for run in result['runs']}
    return TrainedClassifiers(result['size'], runs)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A training set: the real images or not, and some of a generate job's."""

  # whether the real images of the job are in it
  real: bool
  # the generate job whose images are in it; none if not given
  synthetic: Samples | None = None
  # the number of synthetic images, the first ones, so that classes keep their shares; all if not given
  synthetic_num: Count | None = None
  # the number of synthetic images as a multiple of that of the real ones; only one of the two can be set
  synthetic_times: Positive | None = None
  # the size that synthetic images are read at, to be reduced to the size that is wanted; if not given, the
  # smallest that is large enough
  synthetic_size: Count | None = None

  def validate(self) -> None:
    """Raises `Invalid` if there are no images, or settings of synthetic ones contradict each other."""
    if not self.real and self.synthetic is None:
      raise Invalid('', 'has no images: it needs real=True, synthetic=NAME, or both')
    for key in ('synthetic_num', 'synthetic_times', 'synthetic_size'):
      if self.synthetic is None and getattr(self, key) is not None:
        raise Invalid(key, 'is set, but synthetic is not')
    if self.synthetic_num is not None and self.synthetic_times is not None:
      raise Invalid('synthetic_num', 'and synthetic_times are both set; leave one out')

  def check(self, loaded_size: int, real: Contents, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` below `key` if there are not so many synthetic images, or none is large enough.

    Args:
      loaded_size: the size to which images are brought.
      real: what is known of the real images.
      jobs: all jobs.
      key: the dotted key of the mixture.
    """
    if self.synthetic is None:
      return
    if not self.large_enough(self.synthetic.sizes(jobs), loaded_size):
      made = ', '.join(map(str, self.synthetic.sizes(jobs)))
      size = self.synthetic_size or f'unset, and images of {loaded_size} pixels or more are wanted'
      raise Invalid(f'{key}.synthetic_size', f'is {size}; {self.synthetic} makes {made}')
    channels = self.synthetic.channels(jobs)
    if real.channels not in (None, channels):
      raise Invalid(
        f'{key}.synthetic', f'is {self.synthetic}, of {channels} channels; real images have {real.channels}'
      )
    made, wanted = jobs.of(self.synthetic).num_images(jobs), self.num_wanted(real.num_examples)
    name = 'synthetic_num' if self.synthetic_times is None else 'synthetic_times'
    if made is not None and wanted is not None and wanted > made:
      raise Invalid(f'{key}.{name}', f'wants {wanted:,} images of {self.synthetic}, which makes {made:,}')

  def large_enough(self, sizes: Sequence[int], loaded_size: int) -> list[int]:
    """Returns those of some sizes at which synthetic images can be read: they are never enlarged."""
    return [size for size in sizes if size >= loaded_size and self.synthetic_size in (None, size)]

  def num_wanted(self, num_real: int | None) -> int | None:
    """Returns how many synthetic images are wanted, beside so many real ones; None for all, or not known."""
    if self.synthetic_times is None or num_real is None:
      return self.synthetic_num
    return round(self.synthetic_times * num_real)


@dataclasses.dataclass(frozen=True)
class Config:
  """What is trained, how, on what, and what it is tested on."""

  # the network
  model: Classifier
  # how the network is trained
  recipe: Recipe
  # height and width of the images that the network sees
  size: Count
  # the training sets, by name; each has a run for each seed
  mixtures: Annotated[dict[str, Mixture], NotEmpty()]
  # the real images that are trained on
  real: DatasetConfig
  # the real images that are tested on: others than those that all that is tested was trained on or chosen by
  test: DatasetConfig
  # the seeds of the runs; figures are means over them
  seeds: Annotated[tuple[Seed, ...], NotEmpty(), Distinct()]
  # the model's name in the report; that of its class if not given
  title: str | None = None
  # the size to which images are brought first, before parts of `size` are cut out of them: random ones in
  # training, the centre in the test; `size` if not given
  loaded_size: Count | None = None
  # a classify job with the same mixtures and seeds, whose weights training starts from; it may be of another
  # size
  init: TrainedClassifiersReference | None = None
  # where metrics go besides metrics.jsonl
  writers: tuple[WriterName, ...] = ('tensorboard',)

  def validate(self) -> None:
    """Raises `Invalid` if images are smaller than what is cut out of them, or a mixture has a bad name."""
    if self.loaded_size is not None and self.loaded_size < self.size:
      raise Invalid('loaded_size', f'is {self.loaded_size}, less than size {self.size}')
    for name in self.mixtures:
      if '/' in name or name.startswith('.'):
        raise Invalid(f'mixtures.{name}', 'is no name of a folder')

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the network, the data and the job of `init` don't fit each other."""
    require_image_size(self.model, self.size, 'model')
    real = self.real.contents(jobs.workdir, 'real')
    test = self.test.contents(jobs.workdir, 'test')
    if real.class_names:
      for_classes(self.model, len(real.class_names), 'model')
      _require_known(test.class_names or (), real.class_names, 'test')
    if real.channels and test.channels and real.channels != test.channels:
      raise Invalid('test', f'has images of {test.channels} channels, real has {real.channels}')
    for name, mixture in self.mixtures.items():
      mixture.check(self.images_size, real, jobs, f'mixtures.{name}')
    if self.init is not None:
      self._check_init(jobs.of(self.init))

  def real_images(self) -> RealImages:
    """Returns the images that are trained on, if a mixture has them, and those that are tested on."""
    is_trained_on = any(mixture.real for mixture in self.mixtures.values())
    return RealImages(trained_on={'real': self.real} if is_trained_on else {}, tested_on={'test': self.test})

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices cannot share a batch equally."""
    require_batch_size(self.recipe.batch_size, key='recipe.batch_size')

  def _check_init(self, start: 'Config') -> None:
    """Raises `Invalid` if the job whose weights training starts from lacks a run, or has another network."""
    for name in self.mixtures:
      if name not in start.mixtures:
        raise Invalid(f'mixtures.{name}', f'is not among those of {self.init}, whose weights it starts from')
    for seed in self.seeds:
      if seed not in start.seeds:
        raise Invalid('seeds', f'has {seed}, which {self.init}, whose weights it starts from, has not')
    if type(start.model) is not type(self.model):
      raise Invalid('model.type', f'is not that of {self.init}, whose weights it starts from')

  @property
  def images_size(self) -> int:
    """Returns the height and width to which images are brought first."""
    return self.loaded_size or self.size


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Trains and tests this worker's missing runs, and returns the figures of all.

  Raises:
    Unfinished: the other workers have not done theirs yet.
  """
  work = _Runs(config, folder)
  runs = [(name, seed) for name in config.mixtures for seed in config.seeds]
  mine = folder.worker.part(runs)
  for name in config.mixtures:
    work.train_missing(name, [seed for mixture, seed in mine if mixture == name])
  folder.worker.require_all(folder.name, runs, lambda run: work.is_done(*run), 'runs')
  section = folder.config['model']
  channels = work.channels()
  return {
    'extractor_kind': 'classifier',
    'network': section | {'num_classes': len(work.class_names)},
    'model': config.title or type(config.model).__name__,
    'size': config.size,
    'mixtures': {name: work.summary(name) for name in config.mixtures},
    'runs': [
      {'path': str(work.path(*run)), 'mixture': run[0], 'seed': run[1], 'channels': channels} for run in runs
    ],
    'class_names': list(work.class_names),
    'num_test': len(work.test),
  }


def _require_known(names: Sequence[str], known: Sequence[str], key: str) -> None:
  """Raises `Invalid` for `key` if a class that is tested is not trained on."""
  for name in names:
    if name not in known:
      raise Invalid(key, f'has the class {name!r}, which is not among those of `real`')


class _Runs:
  """The runs of a job, one for each mixture and seed."""

  def __init__(self, config: Config, folder: JobFolder):
    self._config, self._folder = config, folder
    self._start = None if config.init is None else config.init.open(folder)
    self.test = config.test.open(folder)
    self._real = config.real.open(folder)
    self.class_names = self._real.class_names
    self.model = for_classes(config.model, len(self.class_names), 'model')
    self._test_map = self._map(self.test.class_names, str(config.test))
    self._sources = {name: self._training_set(mixture) for name, mixture in config.mixtures.items()}

  def path(self, mixture: str, seed: int) -> pathlib.Path:
    """Returns a run's folder, below the job's."""
    return pathlib.Path('runs') / f'{mixture}-seed{seed}'

  def is_done(self, mixture: str, seed: int) -> bool:
    """Returns whether a run has been trained and tested."""
    return (self._folder.path / self.path(mixture, seed) / 'metrics.json').exists()

  def channels(self) -> int:
    """Returns the channels of the images."""
    return self.test[0]['image'].shape[-1]

  def train_missing(self, mixture: str, seeds: Sequence[int]) -> None:
    """Trains and tests the runs of a mixture that have not been, of these seeds."""
    config, folder = self._config, self._folder
    seeds = [seed for seed in seeds if not self.is_done(mixture, seed)]
    if not seeds:
      return
    # only now: they may be all images, in memory
    size = config.images_size
    parts = [labelled(part.source, part.label_map, size, part.num) for part in self._sources[mixture]]
    data = parts[0] if len(parts) == 1 else Joined(parts)
    test = labelled(self.test, self._test_map, size)
    experiment = Experiment(self.model, config.recipe, config.size, test, config.writers)
    for seed in seeds:
      path, what = folder.path / self.path(mixture, seed), f'{folder.name} {mixture} seed {seed}'
      experiment.run(data, seed, path, folder.origin, what, self._initial(mixture, seed))

  def summary(self, mixture: str) -> dict[str, Any]:
    """Returns how many images of what kind a mixture has, and its figures over all seeds."""
    of = self._config.mixtures[mixture]
    nums = [part.num for part in self._sources[mixture]]
    results = [
      read_json(self._folder.path / self.path(mixture, seed) / 'metrics.json') for seed in self._config.seeds
    ]
    return {
      'num_real': nums[0] if of.real else 0,
      'num_synthetic': nums[-1] if of.synthetic else 0,
      'synthetic': of.synthetic and of.synthetic.name,
      'synthetic_size': of.synthetic_size,
      'finetuned': of.synthetic is not None and of.synthetic.open(self._folder).is_finetuned,
      **summary(results),
      'to_real': self._to_real(mixture),
    }

  def _to_real(self, mixture: str) -> dict[str, Any] | None:
    """Returns how much better a mixture is than the real images alone, as `Difference` has it.

    None if it has no synthetic images, the job does not have exactly one mixture of real images alone, or
    an earlier version of the program has tested runs, without keeping predictions.
    """
    real = [name for name, of in self._config.mixtures.items() if of == Mixture(real=True)]
    if mixture in real or len(real) != 1:
      return None
    mine, theirs = self._predictions(mixture), self._predictions(real[0])
    if mine is None or theirs is None:
      return None
    difference = mine.difference(theirs)
    return {'mixture': real[0], **difference._asdict(), 'excludes_zero': difference.excludes_zero}

  def _predictions(self, mixture: str) -> Predictions | None:
    """Returns what the runs of a mixture take the test images for."""
    return load_predictions(
      {seed: self._folder.path / self.path(mixture, seed) for seed in self._config.seeds}
    )

  def _initial(self, mixture: str, seed: int) -> Any:
    """Returns the variables that training starts from; None for random ones."""
    if self._start is None:
      return None
    path = self._start.runs[self.path(mixture, seed).name]
    return classifier.load(self.model, self._start.size, self.channels(), path)

  def _training_set(self, mixture: Mixture) -> list['_Part']:
    """Returns what a mixture is made of, real images first."""
    real, folder = self._real, self._folder
    parts = [_Part(real, len(real), self._map(real.class_names, ''))] if mixture.real else []
    if mixture.synthetic is not None:
      samples = mixture.synthetic.open(folder)
      wanted = mixture.num_wanted(len(real))
      num = samples.num_images if wanted is None else wanted
      if num > samples.num_images:
        raise InputError(
          f'{folder.name}: {num} images wanted of {mixture.synthetic}, which has {samples.num_images}'
        )
      size = min(mixture.large_enough(samples.sizes, self._config.images_size))
      names = self._map(samples.class_names, mixture.synthetic.name)
      parts.append(_Part(samples.images(size), num, names))
    return parts

  def _map(self, names: Sequence[str], what: str) -> np.ndarray:
    """Returns the job's label of each of these classes, which are those of `what`."""
    return label_map(names, self.class_names, f'{self._folder.name}: {what}', str(self._config.real))


class _Part(NamedTuple):
  """A part of a training set: the first `num` examples of a source, and the labels to use for its own."""

  source: Examples
  num: int
  label_map: np.ndarray
