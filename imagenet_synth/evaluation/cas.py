"""Classifiers that are trained on some images and tested on real ones.

Trained on synthetic images alone, their accuracy is the Classification Accuracy Score, CAS (Ravuri & Vinyals,
"Classification Accuracy Score for Conditional Generative Models", 2019).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import flax.linen as nn
import numpy as np
from etils import epath

from imagenet_synth.core.config import Count, Distinct, Execution, Invalid, NotEmpty, Seed
from imagenet_synth.core.files import make_folder, read_json, write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import as_first_has, is_first
from imagenet_synth.data.batches import Drawable, Images
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.source import Examples
from imagenet_synth.evaluation.further_tests import OpenTest
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.predictions import predictions_path, save_predictions
from imagenet_synth.metrics import logits as metrics
from imagenet_synth.metrics.summary import mean_std
from imagenet_synth.models.registry import Classifier, for_classes
from imagenet_synth.train import classifier
from imagenet_synth.train.classifier import HeldOut
from imagenet_synth.train.metric_writers import WriterName, make_writer, require_writers
from imagenet_synth.train.recipe import Recipe

# of test images that stay in memory while the next classifier is trained
_MOST_TEST_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class CasConfig:
  """What a classifier is, how it is trained on a trial's samples, and what it is tested on."""

  # the network
  model: Classifier
  # how the network is trained; not by `real_exposures`, as there are no real images
  recipe: Recipe
  # real images that it is tested on
  test: DatasetConfig
  # the seeds of its runs, one for each; figures are means over them
  seeds: Annotated[tuple[Seed, ...], NotEmpty(), Distinct()]
  # height and width of the parts of images that the network sees; whole images if not given
  size: Count | None = None
  # where metrics of its training go besides metrics.jsonl
  writers: Annotated[tuple[WriterName, ...], Execution()] = ('tensorboard',)

  def validate(self) -> None:
    """Raises `Invalid` if the length of training is counted in real images, or a writer is not installed."""
    require_writers(self.writers)
    if self.recipe.real_exposures is not None:
      raise Invalid(
        'recipe.real_exposures', 'is set, but CAS is of synthetic images alone; give num_steps or epochs'
      )

  def check(self, size: int, num_classes: int | None, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` below `key` if the data is not there, or the network takes no images of `size`."""
    self.test.contents(jobs.workdir, f'{key}.test')
    if num_classes is not None:
      for_classes(self.model, num_classes, f'{key}.model')
    if self.size is not None and self.size > size:
      raise Invalid(f'{key}.size', f'is {self.size}, the images have {size}')
    require_image_size(self.model, self.size or size, f'{key}.model')


def require_image_size(model: nn.Module, size: int, key: str) -> None:
  """Raises `Invalid` below `key` if a classifier does not take images of `size`."""
  divisor = getattr(model, 'size_divisor', 1)
  if size % divisor:
    raise Invalid(key, f'takes images whose size is a multiple of {divisor}, they have {size}')


@dataclasses.dataclass(frozen=True)
class Experiment:
  """All that runs of a classifier, from training to test, have in common: not seeds and training images."""

  # the network
  model: nn.Module
  # how it is trained
  recipe: Recipe
  # height and width of what it sees; the images may be larger
  size: int
  # the images that it is tested on, with their labels
  test: Images
  # where metrics go besides metrics.jsonl
  writers: tuple[WriterName, ...] = ('tensorboard',)
  # of images that have batch statistics of their own in training: see `train.classifier.ClassifierObjective`
  groups: tuple[int, ...] = ()
  # images whose accuracy is written with the metrics while it is trained
  held_out: HeldOut | None = None
  # further images that it is tested on, by name
  tests: Mapping[str, OpenTest] = dataclasses.field(default_factory=dict)

  def run(
    self, data: Drawable, seed: int, path: epath.Path, origin: dict[str, Any], what: str, start: Any = None
  ) -> dict[str, Any]:
    """Trains on `data`, tests, and returns the figures, which are kept in `path`/metrics.json.

    What it takes each test image for is kept beside them: see `inputs.predictions`.
    A run that was tested before is not trained again, one that was killed goes on. Processes that have joined
    each other train and test together.

    Args:
      data: the training images, with their labels.
      seed: of weights, batches and augmentation.
      path: the run's folder.
      origin: where the weights come from, kept with each checkpoint.
      what: names the run in the progress bar.
      start: variables to begin with; random ones if not given.

    Returns:
      seed; top_1, top_5 and calibration_error in [0, 1]; per_class, the accuracy of each class; confusion,
      the counts [true class][predicted class]; with `tests`, what `Answered.measure` returns of each.
    """
    (is_done,) = as_first_has([(path / 'metrics.json').exists()])
    if is_done:
      return read_json(path / 'metrics.json')
    make_folder(path)
    variables = classifier.train(
      self.model,
      self.recipe,
      data,
      self.size,
      seed,
      path,
      origin,
      lambda folder, start_step: make_writer(folder, start_step, self.writers),
      what,
      start,
      self.groups,
      self.held_out,
    )
    logits, labels = classifier.predict_labelled(self.model, variables, self.test, self.size)
    accuracy = metrics.accuracy(logits, labels, top=(1, 5))
    result = {
      'seed': seed,
      'top_1': accuracy[1],
      'top_5': accuracy[5],
      'calibration_error': metrics.expected_calibration_error(logits, labels),
      'per_class': metrics.per_class_accuracy(logits, labels).tolist(),
      'confusion': metrics.confusion_matrix(logits, labels).tolist(),
    }
    answers = {
      name: test.answered(*classifier.predict_labelled(self.model, variables, test.images, self.size))
      for name, test in self.tests.items()
    }
    if answers:
      result['tests'] = {name: answered.measure() for name, answered in answers.items()}
    if is_first():
      save_predictions(predictions_path(path), logits, labels)
      for name, answered in answers.items():
        save_predictions(predictions_path(path, name), answered.logits, answered.labels)
      # last: it says that the run is done
      write_json(path / 'metrics.json', result)
    return result


def trained_on(
  source: Examples,
  label_map: np.ndarray,
  size: int,
  recipe: Recipe,
  rows: Sequence[int] | np.ndarray | None = None,
) -> Images:
  """Returns the images of a source to train on, with their labels, brought to `size` unless parts are cut.

  Args:
    source: its examples have an `image` and a `label`.
    label_map: int [K], the label to use in place of each of the source's: see `data.class_names.label_map`.
    size: height and width wanted.
    recipe: of the training.
    rows: only these of its examples, in this order; all if not given.
  """
  # what is cut out of whole images is another part each time
  cache = not recipe.random_resized_crop
  return Images(source, size, lambda example: int(label_map[example['label']]), cache, rows)


def tested_on(
  source: Examples, label_map: np.ndarray, size: int, recipe: Recipe, often: bool = False
) -> Images:
  """Returns the images of a source for a test, with their labels: see `trained_on`.

  They are resized as the recipe resizes. Between tests they are in memory if they are few, or if they are
  read `often`.
  """
  cache = often or 3 * size**2 * len(source) <= _MOST_TEST_BYTES
  number = lambda example: int(label_map[example['label']])
  return Images(source, size, number, cache, interpolation=recipe.interpolation)


def classification_accuracy_score(
  config: CasConfig,
  source: Examples,
  source_names: Sequence[str],
  class_names: Sequence[str],
  size: int,
  path: epath.Path,
  folder: JobFolder,
) -> dict[str, Any]:
  """Returns the CAS of labelled images: see `summary`.

  Args:
    config: the classifier, its training and its test.
    source: the images that it is trained on.
    source_names: the classes that their labels count.
    class_names: the classes that the classifier tells apart; those of both sets are matched by name.
    size: height and width that images are brought to.
    path: where its runs are kept.
    folder: of the job, whose data sets and origin are used.
  """
  model = for_classes(config.model, len(class_names), 'cas.model')
  test = config.test.open(folder)
  test_map = label_map(test.class_names, class_names, str(config.test), 'the embedded prompts')
  source_map = label_map(source_names, class_names, 'the training set', 'the embedded prompts')
  data = trained_on(source, source_map, size, config.recipe)
  tested = tested_on(test, test_map, size, config.recipe)
  experiment = Experiment(model, config.recipe, config.size or size, tested, config.writers)
  results = []
  for seed in config.seeds:
    what = f'{folder.name} CAS seed {seed}'
    results.append(experiment.run(data, seed, path / f'cas-seed{seed}', folder.origin, what))
  return summary(results)


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the figures of an experiment's runs over all seeds, as JSON holds them.

  They are top_1, top_5 and calibration_error, each with its `mean` and `std`; per_class, means; confusion,
  sums; and tests, of further images by name: top_1, top_5, and their number, num_test.
  """
  numbers = {
    key: mean_std([result[key] for result in results])._asdict()
    for key in ('top_1', 'top_5', 'calibration_error')
  }
  result = numbers | {
    'per_class': np.mean([result['per_class'] for result in results], axis=0).tolist(),
    'confusion': np.sum([result['confusion'] for result in results], axis=0).tolist(),
  }
  if 'tests' in results[0]:
    result['tests'] = {
      name: {
        key: mean_std([of['tests'][name][key] for of in results])._asdict() for key in ('top_1', 'top_5')
      }
      | {'num_test': test['num_test']}
      for name, test in results[0]['tests'].items()
    }
  return result
