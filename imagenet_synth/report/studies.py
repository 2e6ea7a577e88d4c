"""The report's sections on classifiers: accuracy on real, synthetic and both, and as synthetic data grows.

Instead of a section, None is returned where no job was run that it could be about.
"""

import re
from collections.abc import Sequence

from imagenet_synth.report import figures
from imagenet_synth.report.accuracy import Accuracy, Trio, accuracies, by_real_id, jobs_of, model_name, trios
from imagenet_synth.report.gains import Gain, gains_note
from imagenet_synth.report.page import Block, Picture, Points, Section, Table
from imagenet_synth.report.paper_tables import figure_6, table_2, table_3, table_4
from imagenet_synth.report.results import Results, percent, spread


def classifiers(results: Results) -> Section | None:
  """Returns what the paper shows in Tables 2 and 3 and at the bottom of Figure 1."""
  rows = accuracies(results)
  if not rows:
    return None
  worth = [_verdict(trio, rows) for trio in trios(rows)]
  blocks: list[Block] = [Points(worth)] if worth else []
  blocks += [*_arrows(rows), _table(results, rows), *_further(rows), *table_2(results, rows), table_3(rows)]
  return Section('Classifiers on real, synthetic and both', blocks)


def _verdict(trio: Trio, rows: Sequence[Accuracy]) -> str:
  """Returns what one classifier gets from real and from synthetic images alone, and what these are worth."""
  real, synthetic = trio.real, trio.synthetic
  text = (
    f'{model_name(real, rows)}, tested on {real.num_test:,} real images that it has not seen, gets '
    f'{spread(real.top_1)} % of them right when it is trained on {real.trained_on} images. Trained on '
    f'{synthetic.trained_on} ones alone, it gets {spread(synthetic.top_1)} % (the Classification Accuracy '
    f'Score), {_worth(trio)}'
  )
  if trio.not_finetuned:
    text += f'. The cascade that was not fine-tuned scores {spread(trio.not_finetuned.top_1)} %'
  num = real.summary['top_1']['num']
  return f'{text}. Mean ± standard deviation over {num} seeds.' if num > 1 else f'{text}. One seed.'


def _worth(trio: Trio) -> str:
  """Returns what the synthetic images alone are worth, beside guessing and real ones."""
  real, synthetic = trio.real, trio.synthetic
  guessing = f'where guessing gives {real.chance:.3g} %'
  if not real.beats_guessing:
    return (
      f'{guessing}: even real images hardly train this classifier, so nothing can be said of synthetic ones; '
      'next: more real images, more steps, a larger network'
    )
  if not synthetic.beats_guessing:
    return f'{guessing}: worthless so far; next: more steps of training, a larger network'
  share = 100 * (synthetic.top_1[0] - real.chance) / (real.top_1[0] - real.chance)
  return f'{guessing}: {share:.0f} % of what the real images give above that'


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
      'Top-1 accuracy of each model. '
      + '; '.join(
        f'{name}: {spread(real)} % on real, {spread(synthetic)} % on synthetic, {spread(both)} % on both, '
        f'{gain}'
        for name, real, synthetic, both, gain in arrows
      ),
      jobs_of(rows),
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
      str(gain or ''),
      spread(percent(row.summary['top_5'])),
      spread(percent(row.summary['calibration_error'])),
      str(row.summary['top_1']['num']),
    ]
    for row, gain in zip(in_order, gains)
  ]
  header = ['Model', 'Trained on', 'Top-1 (%)', 'To real', 'Top-5 (%)', 'ECE (%)', 'Seeds']
  num_test = results.of_kind('classify')[0].result['num_test']
  about_gains = gains_note(gain for gain in gains if gain)
  return Table(
    'Top-1 accuracy by training set',
    header,
    cells,
    note=f'Tested on {num_test:,} real images; mean ± standard deviation over seeds. '
    'Trained on synthetic images alone, top-1 is the CAS. ECE: expected calibration error. '
    + ' '.join(filter(None, (_lengths(results), about_gains))),
    jobs=jobs_of(rows),
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
  cells.sort(key=lambda row: row[0])
  return [Table('Accuracy on further test images', header, cells, jobs=jobs_of(rows))] if cells else []


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
  return Section('Accuracy as synthetic data grows', [*blocks, table_4(results, rows)])


def _scaling_picture(real: Accuracy, points: Sequence[Accuracy]) -> Picture:
  """Returns the accuracies with more and more synthetic images of a size, beside real ones alone."""
  size, how_mixed = points[0].synthetic_size, points[0].how_mixed
  of = f'{size}x{size}' if size else ''
  mixed = re.sub('[^a-z0-9]+', '_', how_mixed.lower())
  gains = '; '.join(f'{row.gain_over(real)} with {row.num_synthetic:,}' for row in points)
  return Picture(
    '_'.join(filter(None, ('scaling', real.slug, f'real_{real.num_real}', of, mixed))),
    figures.scaling([(row.num_synthetic, *row.top_1) for row in points], real.top_1, figure_6(points[0])),
    f'As Figure 6 of the paper: {real.model}, {real.trained_on} images and synthetic ones'
    f'{f" of {of}" if of else ""}{f" ({how_mixed})" if how_mixed else ""}.',
    f'Top-1 accuracy by the number of synthetic images: {real.top_1[0]:.2f} % with none; in points to that, '
    f'{gains}.',
    jobs_of([real, *points]),
  )
