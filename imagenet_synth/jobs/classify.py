"""The classify job: classifiers are trained on real or synthetic images or both, and tested on real ones.

Trained on synthetic images alone, their accuracy is the Classification Accuracy Score (Ravuri & Vinyals,
2019).
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
from etils import epath

from imagenet_synth.core.config import Count, Distinct, Execution, Invalid, NotEmpty, Seed
from imagenet_synth.core.devices import count_devices
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import as_first_has, first_before_others
from imagenet_synth.data.batches import Images
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.records import ShardSource
from imagenet_synth.data.source import Contents, Examples, Relabelled, Source
from imagenet_synth.data.subsets import drawn_of_each_class, in_class_plan
from imagenet_synth.evaluation.cas import Experiment, require_image_size, summary, tested_on, trained_on
from imagenet_synth.evaluation.further_tests import FurtherTest
from imagenet_synth.evaluation.initial_weights import InitialWeightsReference
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.mixture import Mixture, require_known
from imagenet_synth.inputs.predictions import Predictions, load_predictions
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.models.registry import Classifier, for_classes
from imagenet_synth.train.classifier import HeldOut, has_batch_statistics
from imagenet_synth.train.metric_writers import WriterName, require_writers
from imagenet_synth.train.recipe import Recipe


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
  # further real images, or labels, that runs are tested on, by any name: ImageNet-V2, ReaL
  tests: dict[str, FurtherTest] = dataclasses.field(default_factory=dict)
  # the model's name in the report; that of its class if not given
  title: str | None = None
  # only so many of the real images of each class, drawn anew by each seed, but the same in all jobs; all if
  # not given
  real_per_class: Count | None = None
  # the size to which images are brought before parts of `size` are taken from them: the centre in the test,
  # random ones in training; `size` if not given. Random resized crops are cut out of images as they are read
  loaded_size: Count | None = None
  # real images that are not trained on, such as a part of the training set: the accuracy on them is written
  # with the metrics on the way, where that on test images would be a choice by these. None if not given
  held_out: DatasetConfig | None = None
  # steps between these accuracies; given with `held_out` alone
  evaluate_every: Count | None = None
  # what training starts from: a classify job with the same mixtures and seeds, or an import_extractor job of
  # a public network. The network is the same, maybe for another size; the last layer is new for other classes
  init: InitialWeightsReference | None = None
  # where metrics go besides metrics.jsonl
  writers: Annotated[tuple[WriterName, ...], Execution()] = ('tensorboard',)

  def validate(self) -> None:
    """Raises `Invalid` if settings of images, of the recipe and of the mixtures contradict each other."""
    if self.loaded_size is not None and self.loaded_size < self.size:
      raise Invalid('loaded_size', f'is {self.loaded_size}, less than size {self.size}')
    require_writers(self.writers)
    for key, names in (('mixtures', self.mixtures), ('tests', self.tests)):
      for name in names:
        if '/' in name or name.startswith('.'):
          raise Invalid(f'{key}.{name}', 'is no name of a folder or file')
    for name, mixture in self.mixtures.items():
      if self.recipe.real_exposures is not None and not mixture.real:
        raise Invalid('recipe.real_exposures', f'is set, but mixtures.{name} has no real images')
      if mixture.counts is not None:
        _require_multiple(self.recipe.batch_size, sum(mixture.counts), _said(name, mixture.counts))
      if mixture.own_statistics and self.recipe.repeats > 1:
        raise Invalid(
          'recipe.repeats', f'is {self.recipe.repeats}, but mixtures.{name}.own_statistics counts images once'
        )
      if mixture.own_statistics and self.recipe.accumulate > 1:
        raise Invalid(
          'recipe.accumulate',
          f'is {self.recipe.accumulate}, but mixtures.{name}.own_statistics is of whole batches',
        )
    if (self.held_out is None) != (self.evaluate_every is None):
      missing, other = (
        ('held_out', 'evaluate_every') if self.held_out is None else ('evaluate_every', 'held_out')
      )
      raise Invalid(missing, f'is missing; {other} is set')
    of_class, num = self.real_per_class, self.real.per_class
    if of_class is not None and num is not None and of_class > num:
      raise Invalid('real_per_class', f'is {of_class}, but real.per_class is {num}')
    counted = any(mixture.real or mixture.synthetic_times for mixture in self.mixtures.values())
    if of_class is not None and not counted:
      raise Invalid('real_per_class', 'is set, but no mixture has real images or is a multiple of them')

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the network, the data and the job of `init` don't fit each other."""
    require_image_size(self.model, self.size, 'model')
    real = self.real.contents(jobs.workdir, 'real')
    test = self.test.contents(jobs.workdir, 'test')
    if real.class_names:
      for_classes(self.model, len(real.class_names), 'model')
      require_known(test.class_names or (), real.class_names, 'test')
    for name, further in self.tests.items():
      further.check(real, jobs, f'tests.{name}')
    real = self._drawn_from(real)
    if real.channels and test.channels and real.channels != test.channels:
      raise Invalid('test', f'has images of {test.channels} channels, real has {real.channels}')
    for name, mixture in self.mixtures.items():
      mixture.check(self.images_size, real, jobs, f'mixtures.{name}')
      if mixture.own_statistics and not has_batch_statistics(self.model, self.size):
        raise Invalid(f'mixtures.{name}.own_statistics', 'is set, but the model has no batch statistics')
    if self.held_out is not None:
      self._check_held_out(self.held_out, real, jobs)
    if self.init is not None:
      self.init.check(self.model, self.mixtures, self.seeds, real.channels, jobs)

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    return {
      f'tests.{name}.{key}': path for name, of in self.tests.items() for key, path in of.files().items()
    }

  def real_images(self) -> RealImages:
    """Returns the images that are trained on, if a mixture has them, looked at on the way, and tested on."""
    return RealImages(
      trained_on=self._trained_on(),
      # who sees the accuracy on the way chooses by it
      chosen_by={} if self.held_out is None else {'held_out': self.held_out},
      tested_on=self._tested_on(),
    )

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices cannot share the parameters, or a batch equally."""
    self.recipe.require_devices('recipe')
    for name, mixture in self.mixtures.items():
      if mixture.groups:
        num = count_devices(self.recipe.devices) // self.recipe.tensor
        said = _said(name, mixture.groups)
        why = f'{said}, and own_statistics wants that on each of {num} devices'
        _require_multiple(self.recipe.batch_size, num * sum(mixture.groups), why)

  def require_images(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if a class of a folder has fewer images that can be decoded than are drawn of each."""
    known = self.real.contents(jobs.workdir, 'real')
    if self.real_per_class is not None and known.class_names and known.class_counts is not None:
      counts = self.real.class_counts(jobs.workdir).tolist()
      self._require_of_each(self.real_per_class, known.class_names, counts)

  def _tested_on(self) -> dict[str, DatasetConfig]:
    """Returns the real images that runs are tested on, by their dotted key."""
    return {'test': self.test, **{f'tests.{name}.dataset': of.dataset for name, of in self.tests.items()}}

  def _drawn_from(self, real: Contents) -> Contents:
    """Returns what is known of the real images that a run is trained on, given all."""
    if self.real_per_class is None or real.class_names is None:
      return real
    wanted = self.real_per_class * len(real.class_names)
    if real.num_examples is not None and wanted > real.num_examples:
      raise Invalid(
        'real_per_class',
        f'is {self.real_per_class}, {wanted:,} images of {len(real.class_names)} classes; '
        f'real has {real.num_examples:,}',
      )
    if real.class_counts is not None:
      self._require_of_each(self.real_per_class, real.class_names, real.class_counts)
    return dataclasses.replace(real, num_examples=wanted)

  def _require_of_each(self, num: int, class_names: Sequence[str], counts: Iterable[int]) -> None:
    """Raises `Invalid` if a class has fewer real images than are drawn of each."""
    for name, count in zip(class_names, counts, strict=True):
      if count < num:
        raise Invalid('real_per_class', f'is {num}, but real has {count} images of the class {name!r}')

  def _check_held_out(self, held_out: DatasetConfig, real: Contents, jobs: KnownJobs) -> None:
    """Raises `Invalid` if images do not suit those that are trained on, or are among them."""
    known = held_out.contents(jobs.workdir, 'held_out')
    if known.class_names == ():
      raise Invalid('held_out', f'is {held_out}, which has no labels')
    if real.class_names:
      require_known(known.class_names or (), real.class_names, 'held_out')
    if real.channels and known.channels and real.channels != known.channels:
      raise Invalid('held_out', f'has images of {known.channels} channels, real has {real.channels}')
    for key, dataset in self._trained_on().items():
      if held_out.overlaps(dataset, jobs.workdir):
        raise Invalid('held_out', f"is '{held_out}', which has images of {key}, '{dataset}'; hold out others")

  def _trained_on(self) -> dict[str, DatasetConfig]:
    """Returns the real images that runs are trained on, by their dotted key."""
    used = {'real': self.real} if any(mixture.real for mixture in self.mixtures.values()) else {}
    stand_ins = {f'mixtures.{name}.stand_in': of.stand_in for name, of in self.mixtures.items()}
    return used | {key: dataset for key, dataset in stand_ins.items() if dataset is not None}

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
  mine = folder.worker.takes_on(runs)
  for name in config.mixtures:
    work.train_missing(name, [seed for mixture, seed in mine if mixture == name])
  folder.worker.end(folder.name, lambda: [work.is_done(*run) for run in runs], 'runs')
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
    'real_per_class': config.real_per_class,
    'num_test': len(work.test),
  }


def _said(mixture: str, counts: Sequence[int]) -> str:
  """Returns the share of a mixture in words: 'synthetic_share of mixtures.both is 2 of each 5 images'."""
  return f'synthetic_share of mixtures.{mixture} is {counts[1]} of each {sum(counts)} images'


def _require_multiple(batch_size: int, multiple: int, why: str) -> None:
  """Raises `Invalid` unless the recipe's batches are of a multiple of so many images."""
  if batch_size % multiple:
    less = batch_size - batch_size % multiple
    fits = ' or '.join(str(size) for size in (less, less + multiple) if size)
    raise Invalid(
      'recipe.batch_size', f'is {batch_size}, must be a multiple of {multiple} such as {fits}, as {why}'
    )


class _Runs:
  """The runs of a job, one for each mixture and seed."""

  def __init__(self, config: Config, folder: JobFolder):
    self._config, self._folder = config, folder
    self._start = None if config.init is None else config.init.open(folder)
    self.test = config.test.open(folder)
    self._real = config.real.open(folder)
    self.class_names = self._real.class_names
    self.model = for_classes(config.model, len(self.class_names), 'model')
    test_map = self._map(self.test.class_names, str(config.test))
    self._tested_on = tested_on(self.test, test_map, config.images_size, config.recipe)
    self._held_out: HeldOut | None = None
    if config.held_out is not None and config.evaluate_every is not None:
      held_out = config.held_out.open(folder)
      held_out_map = self._map(held_out.class_names, str(config.held_out))
      images = tested_on(held_out, held_out_map, config.images_size, config.recipe, often=True)
      self._held_out = HeldOut(images, config.evaluate_every)
    self._real_parts = self._parts_of_seeds()
    # of the generate job of this name, at this size: mixtures of the same images share what is open
    self._opened: dict[tuple[str, int], ShardSource] = {}
    self._stand_ins: dict[str, Source] = {}
    self._added: dict[str, list[_Part]] = {}
    for name, mixture in config.mixtures.items():
      self._added[name] = self._added_parts(mixture)
    # what may be in memory
    self._loaded: dict[_Part, Images] = {}
    # also where all runs are done: the process that ends the job says what all of it was made from
    self._further = {
      name: of.open(folder, self.class_names, config.images_size, config.recipe.interpolation)
      for name, of in config.tests.items()
    }

  def path(self, mixture: str, seed: int) -> epath.Path:
    """Returns a run's folder, below the job's."""
    return epath.Path('runs') / f'{mixture}-seed{seed}'

  def is_done(self, mixture: str, seed: int) -> bool:
    """Returns whether a run has been trained and tested."""
    return (self._folder.path / self.path(mixture, seed) / 'metrics.json').exists()

  def channels(self) -> int:
    """Returns the channels of the images."""
    return self.test[0]['image'].shape[-1]

  def train_missing(self, mixture: str, seeds: Sequence[int]) -> None:
    """Trains and tests the runs of a mixture that have not been, of these seeds."""
    config, folder = self._config, self._folder
    done = as_first_has([self.is_done(mixture, seed) for seed in seeds])
    seeds = [seed for seed, is_done in zip(seeds, done) if not is_done]
    if not seeds:
      return
    of = config.mixtures[mixture]
    experiment = Experiment(
      self.model,
      config.recipe,
      config.size,
      self._tested_on,
      config.writers,
      of.groups,
      self._held_out,
      self._further,
    )
    added = self._added[mixture]
    # they may be all images, in memory: what no mixture that is left has is let go
    mixtures = list(config.mixtures)
    left = [part for name in mixtures[mixtures.index(mixture) :] for part in self._added[name]]
    kept = {*self._real_parts.values(), *left}
    self._loaded = {part: images for part, images in self._loaded.items() if part in kept}
    for seed in seeds:
      parts = [self._real_parts[seed], *added] if of.real else added
      data = of.joined([self._images(part) for part in parts])
      path, what = folder.path / self.path(mixture, seed), f'{folder.name} {mixture} seed {seed}'
      experiment.run(data, seed, path, folder.origin, what, self._initial(mixture, seed))

  def _images(self, part: '_Part') -> Images:
    """Returns the images of a part, brought to their size; they are loaded once."""
    if part not in self._loaded:
      size, recipe = self._config.images_size, self._config.recipe
      self._loaded[part] = trained_on(part.source, part.label_map, size, recipe, part.rows)
    return self._loaded[part]

  def summary(self, mixture: str) -> dict[str, Any]:
    """Returns how many images of what kind a mixture has, and its figures over all seeds."""
    of = self._config.mixtures[mixture]
    num_added = sum(len(part.rows) for part in self._added[mixture])
    samples = of.added if isinstance(of.added, Samples) else None
    results = [
      read_json(self._folder.path / self.path(mixture, seed) / 'metrics.json') for seed in self._config.seeds
    ]
    return {
      'num_real': self._num_real if of.real else 0,
      'num_synthetic': num_added if samples else 0,
      'num_stand_in': 0 if samples else num_added,
      'synthetic': samples and samples.name,
      'synthetic_size': of.synthetic_size,
      'synthetic_share': of.synthetic_share,
      'synthetic_weight': of.synthetic_weight,
      'own_statistics': of.own_statistics,
      # of each class, so many images have passed
      'kept': None if of.keep is None else of.keep.left(self._folder),
      'relabelled': of.relabel is not None,
      'finetuned': samples is not None and samples.open(self._folder).is_finetuned,
      **summary(results),
      'to_real': self._to_real(mixture),
    }

  def _to_real(self, mixture: str) -> dict[str, Any] | None:
    """Returns how much better a mixture is than the real images alone, as `Difference` has it; and at what.

    `better` and `worse` are the classes where it is so beyond chance: see `class_differences`.
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
    of_classes = mine.class_differences(theirs, len(self.class_names))
    better, worse = (
      [
        self.class_names[c]
        for c in np.flatnonzero(of_classes.is_beyond_chance & (sign * of_classes.mean > 0))
      ]
      for sign in (1, -1)
    )
    return {
      'mixture': real[0],
      **difference._asdict(),
      'excludes_zero': difference.excludes_zero,
      'better': better,
      'worse': worse,
    }

  def _predictions(self, mixture: str) -> Predictions | None:
    """Returns what the runs of a mixture take the test images for."""
    return load_predictions(
      {seed: self._folder.path / self.path(mixture, seed) for seed in self._config.seeds}
    )

  def _initial(self, mixture: str, seed: int) -> Any:
    """Returns the variables that training starts from; None for random ones."""
    if self._start is None:
      return None
    return self._start.of_run(self.path(mixture, seed).name, self.class_names)

  @property
  def _num_real(self) -> int:
    """Returns how many real images a run is trained on, the same for all seeds."""
    return len(self._real_parts[self._config.seeds[0]].rows)

  def _parts_of_seeds(self) -> dict[int, '_Part']:
    """Returns the real images that runs are trained on, by their seed."""
    config, real, num = self._config, self._real, self._config.real_per_class
    names = self._map(real.class_names, '')
    if num is None:
      return dict.fromkeys(config.seeds, _Part(real, range(len(real)), names))
    # which may take long to find, and are kept
    with first_before_others(f'{self._folder.name}: labels'):
      labels = real.labels()
    try:
      return {
        seed: _Part(real, drawn_of_each_class(labels, real.class_names, num, seed), names)
        for seed in config.seeds
      }
    except InputError as error:
      raise InputError(f'{self._folder.name}: {config.real}: {error}') from None

  def _added_parts(self, mixture: Mixture) -> list['_Part']:
    """Returns what a mixture has beside real images or instead of them; empty if nothing."""
    source: Examples
    rows: Sequence[int] | np.ndarray
    if mixture.added is None:
      return []
    if isinstance(mixture.added, DatasetConfig):
      what = str(mixture.added)
      if what not in self._stand_ins:
        self._stand_ins[what] = mixture.added.open(self._folder)
      source = self._stand_ins[what]
      names: Sequence[str] = source.class_names
      with first_before_others(f'{self._folder.name}: labels of the stand-in'):
        rows = in_class_plan(source.labels(), len(names))
    else:
      samples = mixture.added.open(self._folder)
      size = min(mixture.large_enough(samples.sizes, self._config.images_size))
      if (mixture.added.name, size) not in self._opened:
        self._opened[mixture.added.name, size] = samples.images(size)
      source = self._opened[mixture.added.name, size]
      if mixture.relabel is not None:
        source = Relabelled(source, mixture.relabel.predicted(self._folder))
      names, rows = samples.class_names, range(samples.num_images)
    wanted = mixture.num_wanted(self._num_real)
    if mixture.keep is not None:
      rows = mixture.keep.rows(self._folder, wanted)
    if wanted is not None and wanted > len(rows):
      raise InputError(
        f'{self._folder.name}: {wanted} images wanted of {mixture.added}, which has {len(rows)}'
      )
    part = _Part(source, rows[:wanted], self._map(names, str(mixture.added)))
    others = itertools.chain(*self._added.values())
    return [next((other for other in others if other.equals(part)), part)]

  def _map(self, names: Sequence[str], what: str) -> np.ndarray:
    """Returns the job's label of each of these classes, which are those of `what`."""
    return label_map(names, self.class_names, f'{self._folder.name}: {what}', str(self._config.real))


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
  """A part of a training set: some examples of a source, and the labels to use for its own."""

  source: Examples
  rows: Sequence[int] | np.ndarray
  label_map: np.ndarray

  def equals(self, other: '_Part') -> bool:
    """Returns whether the images and labels of both are the same."""
    same = self.source is other.source and np.array_equal(self.rows, other.rows)
    return same and np.array_equal(self.label_map, other.label_map)
