"""The report's sections on classifiers: accuracy on real, synthetic and both, scaling, class by class.

Instead of a section, None is returned where no job was run that it could be about.
"""

import re
from collections.abc import Sequence

import numpy as np

from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.report import figures, paper
from imagenet_synth.report.accuracy import FEW, Accuracy, Trio, accuracies, by_real_id, model_name, trios
from imagenet_synth.report.gains import Gain, gains_note
from imagenet_synth.report.generator import sample_grid
from imagenet_synth.report.page import Block, Paragraph, Picture, Section, Table
from imagenet_synth.report.results import Results, percent, spread

_NUM_EXTREMES = 10
# the rows of the paper's Table 3 that are shown where none of our models is in it
_SHOWN_OF_THE_PAPER = ('ResNet-50', 'ViT-S/16')


def classifiers(results: Results) -> Section | None:
  """Returns what the paper shows in Tables 2 and 3 and at the bottom of Figure 1."""
  rows = accuracies(results)
  if not rows:
    return None
  blocks: list[Block] = [*_arrows(rows), _table(results, rows), *_further(rows), _of_the_paper(rows)]
  return Section('Classifiers on real, synthetic and both', blocks)


def _arrows(rows: Sequence[Accuracy]) -> list[Picture]:
  """Returns the picture of arrows from real to real + synthetic, if there is a classifier that has one."""
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
  if not arrows:
    return []
  return [
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
  ]


def _table(results: Results, rows: Sequence[Accuracy]) -> Table:
  """Returns a row for each classifier, real images first, with its gain over real images alone."""
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
  real = by_real_id(rows)
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
  return Table(
    header,
    cells,
    note=f'Tested on {num_test:,} real images; mean ± standard deviation over seeds. '
    'Trained on synthetic images alone, top-1 is the CAS. ECE: expected calibration error. '
    + ' '.join(filter(None, (_lengths(results), about_gains))),
  )


def _further(rows: Sequence[Accuracy]) -> list[Table]:
  """Returns a row for each classifier and further test set, if there is one."""
  cells = [
    [
      name,
      model_name(row, rows),
      row.trained_on,
      spread(percent(of['top_1'])),
      spread(percent(of['top_5'])),
      f'{of["num_test"]:,}',
    ]
    for row in rows
    for name, of in row.summary.get('tests', {}).items()
  ]
  header = ['Further test', 'Model', 'Trained on', 'Top-1 (%)', 'Top-5 (%)', 'Images']
  # tests stay together, classifiers in their order
  return [Table(header, sorted(cells, key=lambda row: row[0]))] if cells else []


def _of_the_paper(rows: Sequence[Accuracy]) -> Table:
  """Returns the paper's rows of these classifiers, or of some where it has none of them."""
  ours = {row.model for row in rows}
  theirs = [
    row
    for row in paper.tables()['table_3'].select()
    if row['model'] in (ours if 'ResNet-50' in ours else _SHOWN_OF_THE_PAPER)
  ]
  return Table(
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
  for real in by_real_id(rows).values():
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
      f'brackets: 95 % intervals, those of accuracies for classes with fewer than {FEW} test images. Each '
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
