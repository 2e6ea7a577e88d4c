"""The report's section on single classes: what training on synthetic images does to each.

Instead of a section, None is returned where no job was run that it could be about.
"""

import numpy as np

from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.metrics.class_differences import FALSE_DISCOVERY_RATE, ClassDifferences
from imagenet_synth.report import figures
from imagenet_synth.report.accuracy import FEW, Accuracy, Trio, accuracies, jobs_of, model_name, trios
from imagenet_synth.report.page import Block, Heading, Picture, Section, Table
from imagenet_synth.report.results import Results
from imagenet_synth.report.samples import class_gallery

# classes, and pairs of classes, that are shown
_NUM_EXTREMES = 10


def per_class(results: Results) -> Section | None:
  """Returns what the paper shows in Figure 5."""
  rows = accuracies(results)
  found = trios(rows)
  if not found:
    return None
  blocks: list[Block] = []
  for trio in found:
    name = model_name(trio.real, rows)
    real, synthetic = (100 * np.array(row.summary['per_class']) for row in (trio.real, trio.synthetic))
    blocks += [Heading(name)] if len(found) > 1 else []
    blocks += [
      _per_class_picture(trio, name, real, synthetic),
      *_extremes(results, trio, name, synthetic - real),
    ]
  return Section('Class by class', blocks)


def _per_class_picture(trio: Trio, name: str, real: np.ndarray, synthetic: np.ndarray) -> Picture:
  """Returns the accuracies of all classes: float [K], in percent."""
  class_names = [class_name_and_wnid(of)[0] for of in trio.real.class_names]
  gain = synthetic - real
  seen = f'Top-1 accuracy of {len(gain)} classes: trained on synthetic images, {np.sum(gain > 0)} are better'
  seen += f' and {np.sum(gain < 0)} worse than trained on real ones; the difference is '
  seen += f'{np.nanmin(gain):+.1f} to {np.nanmax(gain):+.1f} points, in the middle {np.nanmedian(gain):+.1f}.'
  return Picture(
    f'per_class_{trio.real.slug}',
    figures.per_class(class_names, real, synthetic),
    f'As Figure 5 of the paper: {name} on {trio.real.trained_on} and on {trio.synthetic.trained_on} images, '
    'means over seeds.',
    seen,
    jobs_of([trio.real, trio.synthetic]),
  )


def _extremes(results: Results, trio: Trio, name: str, gain: np.ndarray) -> list[Block]:
  """Returns the classes that gain and lose most, up to ten, and what their images look like.

  Args:
    results: where the images are.
    trio: the classifier.
    name: what it is called.
    gain: of each class, in percentage points, by training on synthetic instead of real images.
  """
  classes, differences = trio.real.class_names, trio.synthetic.class_differences(trio.real)
  real, synthetic = _confused(trio.real), _confused(trio.synthetic)
  num = min(_NUM_EXTREMES // 2, len(classes) // 2)
  # a class that was not tested is NaN, and last
  order = [c for c in np.argsort(-gain, kind='stable') if np.isfinite(gain[c])]
  shown = [*order[:num], *order[-num:]] if num else []
  rows = [
    [
      _name(trio.real, int(c)),
      *(row.of_class(c) for row in (trio.real, trio.synthetic)),
      str(trio.synthetic.gain_over(trio.real, int(c))),
      '' if differences is None else 'yes' if differences.is_beyond_chance[c] else 'no',
      *(_taken_for(trio.real, int(c), shares) for shares in (real, synthetic)),
    ]
    for c in shown
  ]
  blocks: list[Block] = [
    Table(
      f'The classes that gain and lose most when {name} is trained on synthetic images',
      [
        *('Class', 'Real (%)', 'Synthetic (%)', 'Difference', 'Beyond chance'),
        *('Taken for, real', 'Taken for, synthetic'),
      ],
      rows,
      note=f'In brackets: 95 % intervals, those of accuracies for classes with fewer than {FEW} test images. '
      f'Each is of one class by itself, of {len(order)}. {_beyond_chance(differences)}Taken for: the other '
      'class that most of its images are taken for, and their share.',
      jobs=jobs_of([trio.real, trio.synthetic]),
    )
  ]
  # synthetic images may come from elsewhere, without a generate job in this folder
  if shown and results.of_kind('generate'):
    caption = f'Images of these classes, in the same order ({name}).'
    shown_names = [classes[c] for c in shown]
    blocks.append(class_gallery(results, f'extremes_{trio.real.slug}', shown_names, caption))
  return blocks + _confusions(trio, name, real, synthetic)


def _beyond_chance(differences: ClassDifferences | None) -> str:
  """Returns how many classes gain and lose more than by chance, in words; '' if that is not known."""
  if differences is None:
    return ''
  gains, losses = (
    int(np.sum(differences.is_beyond_chance & (sign * differences.mean > 0))) for sign in (1, -1)
  )
  return (
    f'Beyond chance, {gains:,} classes gain and {losses:,} lose: of all that are named so, '
    f'{100 * FALSE_DISCOVERY_RATE:g} % at most are so by chance, on average (Benjamini & Hochberg, 1995). '
  )


def _taken_for(row: Accuracy, label: int, confused: np.ndarray) -> str:
  """Returns 'tabby 12.0 %', the class that most images of a class are taken for; '' if there is none."""
  shares = confused[label]
  other = int(shares.argmax())
  return f'{_name(row, other)} {shares[other]:.1f} %' if shares[other] else ''


def _confusions(trio: Trio, name: str, real: np.ndarray, synthetic: np.ndarray) -> list[Table]:
  """Returns the pairs of classes that are confused most often after training on synthetic images.

  Args:
    trio: the classifier.
    name: what it is called.
    real: what is confused by it, trained on real images, as `_confused` has it.
    synthetic: the same, trained on synthetic ones.
  """
  most = np.argsort(-synthetic, axis=None, kind='stable')[:_NUM_EXTREMES]
  pairs = [(c, other) for c, other in zip(*np.unravel_index(most, real.shape)) if synthetic[c, other]]
  cells = [
    [_name(trio.real, c), _name(trio.real, other), f'{real[c, other]:.2f}', f'{synthetic[c, other]:.2f}']
    for c, other in pairs
  ]
  if not cells:
    return []
  return [
    Table(
      f'What is confused most often when {name} is trained on synthetic images',
      ['Images of', 'Taken for', 'Real (%)', 'Synthetic (%)'],
      cells,
      note='The share of the images of a class that are taken for another one, after training on real and on '
      'synthetic images. The job.json of a classify job has that of all classes, as "confusion".',
      jobs=jobs_of([trio.real, trio.synthetic]),
    )
  ]


def _confused(row: Accuracy) -> np.ndarray:
  """Returns the share of the images of each class that are taken for each other one, in percent: [K, K]."""
  counts = np.array(row.summary['confusion'], float)
  shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  np.fill_diagonal(shares, 0)
  return shares


def _name(row: Accuracy, label: int) -> str:
  return class_name_and_wnid(row.class_names[label])[0]
