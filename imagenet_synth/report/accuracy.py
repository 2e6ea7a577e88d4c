"""The classifiers that were trained, one for each mixture, and those that are held against each other."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from etils import epath

from imagenet_synth.core.config import build
from imagenet_synth.core.files import json_hash
from imagenet_synth.data.batches import share_of_batch
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.predictions import Predictions, load_predictions
from imagenet_synth.metrics.class_differences import ClassDifferences
from imagenet_synth.metrics.uncertainty import beats_guessing, share_interval
from imagenet_synth.report.drawing import MeanStd
from imagenet_synth.report.gains import Gain
from imagenet_synth.report.results import FinishedJob, Results, percent

# tested images of a class below which its accuracy is given with an interval
FEW = 100


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """A classifier trained on one mixture, over seeds."""

  # the name of the job that has trained it
  job: str
  # its title
  model: str
  # height and width of its input
  size: int
  # the classes in label order, as their data set names them
  class_names: tuple[str, ...]
  # the same for all that have title, network, recipe, size and classes in common
  model_id: str
  # real images of the training set
  num_real: int
  # synthetic images of the training set
  num_synthetic: int
  # whether the cascade that has drawn them was fine-tuned
  finetuned: bool
  # height and width of the synthetic images, where the config chooses it
  synthetic_size: int | None
  # real images that it was tested on
  num_test: int
  # name and version of the real images of its job, those to train on and those that it was tested on
  real_data: tuple[str, str]
  test_data: tuple[str, str]
  # the folders of its runs, by their seeds
  runs: dict[int, epath.Path]
  # the mixture's figures, as jobs/classify.py writes them
  summary: dict[str, Any]

  @property
  def trained_on(self) -> str:
    """Returns the training set in words, to be followed by 'images'."""
    parts = [f'{self.num_real:,} real'] if self.num_real else []
    if self.num_synthetic:
      tuned = '' if self.finetuned else ', not fine-tuned'
      parts.append(f'{self.num_synthetic:,} synthetic{self.of_size}{tuned}')
    if self.num_stand_in:
      parts.append(f'{self.num_stand_in:,} stand-in')
    return ' + '.join(parts) + (f' ({self.how_mixed})' if self.how_mixed and not self.on_real_alone else '')

  @property
  def of_size(self) -> str:
    """Returns ' of 32x32', to follow 'synthetic'; '' where the config chooses no size."""
    return f' of {self.synthetic_size}x{self.synthetic_size}' if self.synthetic_size else ''

  @property
  def num_stand_in(self) -> int:
    """Returns how many labelled images stand in for synthetic ones: a control, neither synthetic nor both."""
    return self.summary.get('num_stand_in', 0)

  @property
  def how_mixed(self) -> str:
    """Returns how synthetic images are chosen and mixed with real ones; '' for all images alike."""
    share, weight = self.summary.get('synthetic_share'), self.summary.get('synthetic_weight', 1)
    texts = [
      f'{_in_words(share)} of each batch' if share else '',
      'chosen by score' if self.summary.get('kept') else '',
      'relabelled' if self.summary.get('relabelled') else '',
      f'weight {weight:g}' if weight != 1 else '',
      'own statistics' if self.summary.get('own_statistics') else '',
    ]
    return ', '.join(filter(None, texts))

  @property
  def chance(self) -> float:
    """Returns what guessing gives, in percent."""
    return 100 / len(self.summary['per_class'])

  @property
  def beats_guessing(self) -> bool:
    """Returns whether it is better than guessing, by more than its noise."""
    top_1 = self.summary['top_1']
    return beats_guessing(top_1['mean'], top_1['std'], len(self.summary['per_class']), self.num_test)

  @property
  def real_id(self) -> tuple[Any, ...]:
    """Returns what it has in common with classifiers that are trained on the same real images."""
    return self.model_id, self.num_real, self.real_data if self.num_real else None

  @property
  def on_real_alone(self) -> bool:
    """Returns whether it was trained on real images alone."""
    return not self.num_synthetic and not self.num_stand_in

  def gain_over(self, other: 'Accuracy', label: int | None = None) -> Gain:
    """Returns how much better it is than another one of the same classes, or on one of these."""
    mine, theirs = (
      row.summary['top_1']['mean'] if label is None else row.summary['per_class'][label]
      for row in (self, other)
    )
    points = 100 * (mine - theirs)
    if self.predictions is None or other.predictions is None:
      return Gain(points, None, 'an earlier version of the program kept no predictions')
    if self.test_data != other.test_data:
      return Gain(points, None, 'the two were tested on different images')
    return Gain(points, self.predictions.difference(other.predictions, label))

  def class_differences(self, other: 'Accuracy') -> ClassDifferences | None:
    """Returns which classes it tells better or worse than another one; None where gains have no interval."""
    if self.predictions is None or other.predictions is None or self.test_data != other.test_data:
      return None
    return self.predictions.class_differences(other.predictions, len(self.class_names))

  @functools.cached_property
  def predictions(self) -> Predictions | None:
    """Returns what its runs take the test images for; None where that was not kept."""
    return load_predictions(self.runs)

  def of_class(self, label: int) -> str:
    """Returns the accuracy on a class, in percent, with its 95 % interval where few images were tested."""
    share, num = self.summary['per_class'][label], self._num_tested(label)
    if not num or num >= FEW:
      return f'{100 * share:.2f}'
    low, high = share_interval(share, num)
    return f'{100 * share:.0f} ({100 * low:.0f} to {100 * high:.0f})'

  def _num_tested(self, label: int) -> int:
    """Returns how many images of a class were tested: runs are summed up in the confusion matrix."""
    return round(sum(self.summary['confusion'][label]) / self.summary['top_1']['num'])

  @property
  def slug(self) -> str:
    """Returns what stands for the model and the size of its input in names of files."""
    return re.sub('[^a-z0-9]+', '_', f'{self.model}_{self.size}'.lower())

  @property
  def top_1(self) -> MeanStd:
    """Returns mean and standard deviation of the top-1 accuracy over seeds, in percent."""
    return percent(self.summary['top_1'])


# several sections ask for them, and each has predictions to read; a report is made of one `Results`
@functools.lru_cache(maxsize=1)
def accuracies(results: Results) -> tuple[Accuracy, ...]:
  """Returns the classifiers of all classify jobs, one for each mixture."""
  rows = []
  for job in results.of_kind('classify'):
    class_names = tuple(job.result['class_names'])
    # a title of its own sets a classifier apart from others that are trained alike
    settings = [job.config[key] for key in ('model', 'recipe', 'size')]
    model_id = json_hash([job.result['model'], *settings, class_names])
    real_data, test_data = (_images_of(job, key) for key in ('real', 'test'))
    for name, mixture in job.result['mixtures'].items():
      runs = {run['seed']: job.path / run['path'] for run in job.result['runs'] if run['mixture'] == name}
      rows.append(
        Accuracy(
          job.name,
          job.result['model'],
          job.result['size'],
          class_names,
          model_id,
          mixture['num_real'],
          mixture['num_synthetic'],
          mixture['finetuned'],
          mixture['synthetic_size'],
          job.result['num_test'],
          real_data,
          test_data,
          runs,
          mixture,
        )
      )
  return tuple(rows)


def _images_of(job: FinishedJob, key: str) -> tuple[str, str]:
  """Returns name and version of the images that a key of a job's section names."""
  dataset = build(DatasetConfig, job.config[key], key)
  return str(dataset), job.origin['data'][f'images of {dataset}']


@dataclasses.dataclass(frozen=True)
class Trio:
  """One classifier, trained on real images, on synthetic ones and on both.

  Where there are several numbers of real images, it is the largest one; of synthetic images, the smallest.
  """

  real: Accuracy
  # the images of a fine-tuned cascade
  synthetic: Accuracy
  # the same real images and those of a fine-tuned cascade
  both: Accuracy | None
  # the images of a cascade that was not fine-tuned
  not_finetuned: Accuracy | None


def trios(rows: Sequence[Accuracy]) -> list[Trio]:
  """Returns a trio for each classifier that was trained both on real and on synthetic images alone."""
  found = []
  for model_id in dict.fromkeys(row.model_id for row in rows):
    mine = [row for row in rows if row.model_id == model_id]
    real, synthetic, both = sets_of(mine)
    if real and synthetic:
      alone = [row for row in mine if not row.num_real and row.num_synthetic and not row.finetuned]
      found.append(Trio(real, synthetic, both, _fewest_synthetic(alone)))
  return found


def sets_of(rows: Sequence[Accuracy]) -> tuple[Accuracy | None, Accuracy | None, Accuracy | None]:
  """Returns one classifier on real images, on synthetic ones and on both, as far as it was trained on these.

  The number of real images is the largest one; that of synthetic ones, of a fine-tuned cascade, the smallest.
  """
  real = max((row for row in rows if row.on_real_alone), key=lambda row: row.num_real, default=None)
  tuned = [row for row in rows if row.num_synthetic and row.finetuned]
  both = [row for row in tuned if row.num_real and (real is None or row.real_id == real.real_id)]
  return real, _fewest_synthetic([row for row in tuned if not row.num_real]), _fewest_synthetic(both)


@dataclasses.dataclass(frozen=True)
class Pair:
  """One classifier, trained on real images alone, and on these together with synthetic ones."""

  real: Accuracy
  both: Accuracy


def pairs(rows: Sequence[Accuracy]) -> list[Pair]:
  """Returns a pair for each classifier and set of real images, those of the fewest real images first.

  Of several mixtures with these it is the one with the most synthetic images, whatever its accuracy: what
  is best on test images must not be chosen by them. Fine-tuned ones, and larger ones, go before others.
  """
  found = []
  for real in by_real_id(rows).values():
    both = [row for row in rows if row.real_id == real.real_id and row.num_synthetic]
    if both:
      most = max(both, key=lambda row: (row.num_synthetic, row.finetuned, row.synthetic_size or 0))
      found.append(Pair(real, most))
  return sorted(found, key=lambda pair: pair.real.num_real)


def controls_of(real: Accuracy, rows: Sequence[Accuracy]) -> list[Accuracy]:
  """Returns the controls to a classifier of real images: the same images and stand-ins for synthetic ones."""
  return [row for row in rows if row.real_id == real.real_id and row.num_real and row.num_stand_in]


def by_real_id(rows: Sequence[Accuracy]) -> dict[tuple[Any, ...], Accuracy]:
  """Returns the classifiers on real images alone by their `real_id`; the first, where it is trained twice."""
  found: dict[tuple[Any, ...], Accuracy] = {}
  for row in rows:
    if row.on_real_alone:
      found.setdefault(row.real_id, row)
  return found


def _in_words(share: float) -> str:
  """Returns the fraction that `synthetic_share` is taken as: 'half', '3/4'."""
  fraction = share_of_batch(share)
  return 'half' if fraction == Fraction(1, 2) else str(fraction)


def _fewest_synthetic(rows: Sequence[Accuracy]) -> Accuracy | None:
  return min(rows, key=lambda row: row.num_synthetic, default=None)


def model_name(row: Accuracy, rows: Sequence[Accuracy]) -> str:
  """Returns the model, with the size of its input where that is needed to tell it from another."""
  sizes = {other.size for other in rows if other.model == row.model}
  return row.model if len(sizes) == 1 else f'{row.model} at {row.size}'


def jobs_of(rows: Sequence[Accuracy]) -> list[str]:
  """Returns the names of the jobs that have trained classifiers, in order."""
  return list(dict.fromkeys(row.job for row in rows))
