"""The report's sections on classifiers: accuracy on real, synthetic and both, scaling, class by class.

Instead of a section, None is returned where no job was run that it could be about.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from imagenet_synth.core.config import build
from imagenet_synth.core.files import json_hash
from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.predictions import Predictions, load_predictions
from imagenet_synth.metrics.uncertainty import beats_guessing, share_interval
from imagenet_synth.report import figures, paper
from imagenet_synth.report.gains import Gain, gains_note
from imagenet_synth.report.generator import sample_grid
from imagenet_synth.report.page import Block, Paragraph, Picture, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, percent, spread

_NUM_EXTREMES = 10
# tested images of a class below which its accuracy is given with an interval
_FEW = 100
# the rows of the paper's Table 3 that are shown where none of our models is in it
_SHOWN_OF_THE_PAPER = ('ResNet-50', 'ViT-S/16')


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """A classifier trained on one mixture, over seeds."""

  # its title
  model: str
  # height and width of its input
  size: int
  # the classes in label order, as their data set names them
  class_names: tuple[str, ...]
  # the same for all that have network, recipe, size and classes in common
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
  runs: dict[int, pathlib.Path]
  # the mixture's figures, as jobs/classify.py writes them
  summary: dict[str, Any]

  @property
  def trained_on(self) -> str:
    """Returns the training set in words, to be followed by 'images'."""
    parts = [f'{self.num_real:,} real'] if self.num_real else []
    if self.num_synthetic:
      size = f' of {self.synthetic_size}x{self.synthetic_size}' if self.synthetic_size else ''
      parts.append(f'{self.num_synthetic:,} synthetic{size}' + ('' if self.finetuned else ', not fine-tuned'))
    if self.num_stand_in:
      parts.append(f'{self.num_stand_in:,} stand-in')
    return ' + '.join(parts) + (f' ({self.how_mixed})' if self.how_mixed and not self.on_real_alone else '')

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

  @functools.cached_property
  def predictions(self) -> Predictions | None:
    """Returns what its runs take the test images for; None where that was not kept."""
    return load_predictions(self.runs)

  def of_class(self, label: int) -> str:
    """Returns the accuracy on a class, in percent, with its 95 % interval where few images were tested."""
    share, num = self.summary['per_class'][label], self._num_tested(label)
    if not num or num >= _FEW:
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
  def top_1(self) -> figures.MeanStd:
    """Returns mean and standard deviation of the top-1 accuracy over seeds, in percent."""
    return percent(self.summary['top_1'])


def accuracies(results: Results) -> list[Accuracy]:
  """Returns the classifiers of all classify jobs, one for each mixture."""
  rows = []
  for job in results.of_kind('classify'):
    class_names = tuple(job.result['class_names'])
    model_id = json_hash([*(job.config[key] for key in ('model', 'recipe', 'size')), class_names])
    real_data, test_data = (_images_of(job, key) for key in ('real', 'test'))
    for name, mixture in job.result['mixtures'].items():
      runs = {run['seed']: job.path / run['path'] for run in job.result['runs'] if run['mixture'] == name}
      rows.append(
        Accuracy(
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
  return rows


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
    mine = sorted(
      (row for row in rows if row.model_id == model_id and not row.num_stand_in),
      key=lambda row: row.num_synthetic,
    )
    real = max((row for row in mine if row.on_real_alone), key=lambda row: row.num_real, default=None)
    synthetic = _first(row for row in mine if not row.num_real and row.finetuned)
    not_finetuned = _first(row for row in mine if not row.num_real and not row.finetuned)
    if real and synthetic:
      both = _first(row for row in mine if row.real_id == real.real_id and row.finetuned)
      found.append(Trio(real, synthetic, both, not_finetuned))
  return found


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
  for real in _by_real_id(rows).values():
    both = [row for row in rows if row.real_id == real.real_id and row.num_synthetic]
    if both:
      most = max(both, key=lambda row: (row.num_synthetic, row.finetuned, row.synthetic_size or 0))
      found.append(Pair(real, most))
  return sorted(found, key=lambda pair: pair.real.num_real)


def _by_real_id(rows: Sequence[Accuracy]) -> dict[tuple[Any, ...], Accuracy]:
  """Returns the classifiers on real images alone by their `real_id`; the first, where it is trained twice."""
  found: dict[tuple[Any, ...], Accuracy] = {}
  for row in rows:
    if row.on_real_alone:
      found.setdefault(row.real_id, row)
  return found


def _in_words(share: float) -> str:
  """Returns the fraction that `synthetic_share` is taken as: 'half', '3/4'."""
  fraction = Fraction(share).limit_denominator(64)
  return 'half' if fraction == Fraction(1, 2) else str(fraction)


def _first(rows: Iterable[Accuracy]) -> Accuracy | None:
  return next(iter(rows), None)


def classifiers(results: Results) -> Section | None:
  """Returns what the paper shows in Tables 2 and 3 and at the bottom of Figure 1."""
  rows = accuracies(results)
  if not rows:
    return None
  arrows = [
    (
      model_name(trio.real, rows),
      trio.real.top_1,
      trio.synthetic.top_1,
      trio.both.top_1,
      str(trio.both.gain_over(trio.real)),
    )
    for trio in trios(rows)
    if trio.both
  ]
  blocks: list[Block] = []
  if arrows:
    blocks.append(
      Picture(
        'real_vs_both',
        figures.real_vs_both(arrows),
        'As Figure 1, bottom, of the paper: an arrow from real to real + synthetic.',
        '; '.join(
          f'{name}: {spread(real)} % on real, {spread(synthetic)} % on synthetic, {spread(both)} % on both, '
          f'{gain}'
          for name, real, synthetic, both, gain in arrows
        ),
      )
    )
  in_order = sorted(
    rows,
    key=lambda row: (
      row.model,
      bool(row.num_stand_in),
      bool(row.num_synthetic),
      row.num_real,
      row.num_synthetic + row.num_stand_in,
    ),
  )
  real = _by_real_id(rows)
  # synthetic images alone are held against the largest real set
  largest = {row.model_id: row for row in sorted(real.values(), key=lambda row: row.num_real)}
  gains: list[Gain | None] = []
  for row in in_order:
    before = real.get(row.real_id) if row.num_real else largest.get(row.model_id)
    gains.append(None if row.on_real_alone or before is None else row.gain_over(before))
  cells = [
    [
      model_name(row, rows),
      row.trained_on,
      spread(row.top_1),
      spread(percent(row.summary['top_5'])),
      str(gain or ''),
      spread(percent(row.summary['calibration_error'])),
      str(row.summary['top_1']['num']),
    ]
    for row, gain in zip(in_order, gains)
  ]
  header = ['Model', 'Trained on', 'Top-1 (%)', 'Top-5 (%)', 'To real', 'ECE (%)', 'Seeds']
  num_test = results.of_kind('classify')[0].result['num_test']
  about_gains = gains_note(gain for gain in gains if gain)
  blocks.append(
    Table(
      header,
      cells,
      note=f'Tested on {num_test:,} real images; mean ± standard deviation over seeds. '
      'Trained on synthetic images alone, top-1 is the CAS. ECE: expected calibration error. '
      + ' '.join(filter(None, (_lengths(results), about_gains))),
    )
  )
  ours = {row.model for row in rows}
  theirs = [
    row
    for row in paper.tables()['table_3'].select()
    if row['model'] in (ours if 'ResNet-50' in ours else _SHOWN_OF_THE_PAPER)
  ]
  blocks.append(
    Table(
      ['The paper, ImageNet', 'Real', 'Generated', 'Real + generated'],
      [
        [
          f'{row["model"]} at {row["image_size"]}',
          *(f'{row[key]:.2f}' for key in ('real', 'generated', 'real_and_generated')),
        ]
        for row in theirs
      ],
      note='Table 3 of the paper: top-1 (%), 1.2M generated images.',
    )
  )
  return Section('Classifiers on real, synthetic and both', blocks)


def model_name(row: Accuracy, rows: Sequence[Accuracy]) -> str:
  """Returns the model, with the size of its input where that is needed to tell it from another."""
  sizes = {other.size for other in rows if other.model == row.model}
  return row.model if len(sizes) == 1 else f'{row.model} at {row.size}'


def _lengths(results: Results) -> str:
  """Returns how long the classifiers are trained, as a sentence; '' where they differ in that."""
  texts = {
    'epochs': 'Training lasts so many epochs over the training set, real and synthetic images together.',
    'real_exposures': 'Training lasts until each real image was seen so many times, whatever is added.',
    'num_steps': 'All runs of a model take the same number of steps.',
  }
  recipes = [job.config['recipe'] for job in results.of_kind('classify')]
  counted = {key for recipe in recipes for key in texts if recipe.get(key) is not None}
  return texts[counted.pop()] if len(counted) == 1 else ''


def scaling(results: Results) -> Section | None:
  """Returns what the paper shows in Table 4 and Figure 6."""
  rows = accuracies(results)
  blocks: list[Block] = []
  for real in _by_real_id(rows).values():
    both = [row for row in rows if row.real_id == real.real_id and row.num_synthetic and row.finetuned]
    for how in dict.fromkeys((row.synthetic_size, row.how_mixed) for row in both):
      points = sorted(
        (row for row in both if (row.synthetic_size, row.how_mixed) == how), key=lambda row: row.num_synthetic
      )
      if len(points) > 1:
        blocks.append(_scaling_picture(real, points))
  if not blocks:
    return None
  figure_6 = paper.tables()['figure_6'].select()
  printed = ', '.join(
    f'+{row["printed_gain"]} at {row["generated_millions"]}M'
    for row in figure_6
    if row['printed_gain'] is not None
  )
  table_4 = '; '.join(
    f'at {size}x{size} '
    + ', '.join(
      f'{row["top_1"]} ± {row["top_1_std"]} of {row["total_millions"]}M'
      for row in paper.tables()['table_4'].select(image_size=size)
    )
    for size in (256, 1024)
  )
  return Section(
    'Accuracy as synthetic data grows',
    blocks
    + [
      Paragraph(
        f'The paper, ResNet-50 on ImageNet, 1.2M real images: at 64x64 {printed} generated images; real and '
        f'generated images together, {table_4}.'
      )
    ],
  )


def _scaling_picture(real: Accuracy, points: Sequence[Accuracy]) -> Picture:
  """Returns the accuracies with more and more synthetic images of a size, beside real ones alone."""
  size, how_mixed = points[0].synthetic_size, points[0].how_mixed
  of = f'{size}x{size}' if size else ''
  mixed = re.sub('[^a-z0-9]+', '_', how_mixed.lower())
  gains = '; '.join(f'{row.num_synthetic:,}: {row.gain_over(real)}' for row in points)
  return Picture(
    '_'.join(filter(None, ('scaling', real.slug, f'real_{real.num_real}', of, mixed))),
    figures.scaling([(row.num_synthetic, *row.top_1) for row in points], real.top_1),
    f'As Figure 6 of the paper: {real.model}, {real.trained_on} images and synthetic ones'
    f'{f" of {of}" if of else ""}{f" ({how_mixed})" if how_mixed else ""}. '
    f'To real images alone, in points, with so many synthetic ones: {gains}.',
  )


def _extremes(results: Results, trio: Trio, gain: np.ndarray) -> list[Block]:
  """Returns the classes that gain and lose most, up to ten, and what their images look like.

  Args:
    results: where the images are.
    trio: the classifier.
    gain: of each class, in percentage points, by training on synthetic instead of real images.
  """
  classes = trio.real.class_names
  num = min(_NUM_EXTREMES // 2, len(classes) // 2)
  # a class that was not tested is NaN, and last
  order = [c for c in np.argsort(-gain, kind='stable') if np.isfinite(gain[c])]
  shown = [*order[:num], *order[-num:]] if num else []
  model = trio.real.model
  rows = [
    [
      class_name_and_wnid(classes[c])[0],
      *(row.of_class(c) for row in (trio.real, trio.synthetic)),
      str(trio.synthetic.gain_over(trio.real, int(c))),
    ]
    for c in shown
  ]
  blocks: list[Block] = [
    Table(
      ['Class', 'Real (%)', 'Synthetic (%)', 'Difference'],
      rows,
      note=f'{model}: the classes that gain and lose most when it is trained on synthetic images. In '
      f'brackets: 95 % intervals, those of accuracies for classes with fewer than {_FEW} test images. Each '
      f'is of one class by itself; these are the extremes of {len(order)}, some of them by chance alone.',
    )
  ]
  # synthetic images may come from elsewhere, without a generate job in this folder
  if shown and results.of_kind('generate'):
    caption = f'Images of these classes, in the same order ({model}).'
    blocks.append(
      Picture(f'extremes_{trio.real.slug}', sample_grid(results, [classes[c] for c in shown]), caption)
    )
  return blocks


def per_class(results: Results) -> Section | None:
  """Returns what the paper shows in Figure 5."""
  found = trios(accuracies(results))
  if not found:
    return None
  blocks: list[Block] = []
  for trio in found:
    names = [class_name_and_wnid(name)[0] for name in trio.real.class_names]
    real, synthetic = (100 * np.array(row.summary['per_class']) for row in (trio.real, trio.synthetic))
    blocks.append(
      Picture(
        f'per_class_{trio.real.slug}',
        figures.per_class(names, real, synthetic),
        f'As Figure 5 of the paper: {trio.real.model} on {trio.real.trained_on} and on '
        f'{trio.synthetic.trained_on} images, means over seeds.',
      )
    )
    blocks += _extremes(results, trio, synthetic - real)
  return Section('Class by class', blocks)
