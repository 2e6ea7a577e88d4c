"""The paper's Tables 2, 3 and 4 with what was measured here beside them.

On ImageNet each of the paper's numbers has a place for ours, which is seen to be empty where there is no run.
Of other data sets there is nothing to compare: their classifiers stand above some of the paper's.
"""

from collections.abc import Sequence
from typing import Any

from imagenet_synth.report import paper
from imagenet_synth.report.accuracy import Accuracy, by_real_id, jobs_of, model_name, sets_of
from imagenet_synth.report.page import NO_RUN, Table
from imagenet_synth.report.results import Results, percent, spread

# the rows of Table 3 that are shown beside classifiers of other data sets
_SHOWN_OF_TABLE_3 = ('ResNet-50', 'ViT-S/16')

Row = list[str | None]


def table_2(results: Results, rows: Sequence[Accuracy]) -> list[Table]:
  """Returns the classification accuracy scores of ResNet-50, if it was trained on ImageNet here."""
  ours = _of_resnet_50(rows)
  if not ours:
    return []
  alone = [row for row in ours if not row.num_real and row.num_synthetic and row.finetuned]

  def measured(of: dict[str, Any]) -> Row:
    if of['model'] == 'Real':
      found = [row for row in ours if row.on_real_alone]
    elif of['model'].startswith('Ours'):
      found = [row for row in alone if _drawn_size(results, row) == of['image_size']]
    else:
      return ['', '']
    return [spread(percent(found[0].summary[key])) if found else NO_RUN for key in ('top_1', 'top_5')]

  cells: list[Row] = []
  for of in paper.tables()['table_2'].select():
    size = f'{of["image_size"]}x{of["image_size"]}' if of['image_size'] else ''
    theirs = [f'{of[key]:.2f}' for key in ('top_1', 'top_5')]
    cells.append([of['model'], size, *_in_turns(measured(of), theirs)])
  header = ['Trained on', 'Size', 'Top-1 here (%)', 'the paper', 'Top-5 here (%)', 'the paper']
  return [Table('As Table 2 of the paper: CAS, ResNet-50', header, cells, jobs=[row.job for row in ours][:1])]


def table_3(rows: Sequence[Accuracy]) -> Table:
  """Returns each classifier on real images, on synthetic ones and on both, beside the paper's."""
  theirs = {(of['model'], of['image_size']): of for of in paper.tables()['table_3'].select()}
  cells: list[Row] = []
  on_imagenet = any(map(_on_imagenet, rows))
  for model_id in dict.fromkeys(row.model_id for row in rows):
    ours = [row for row in rows if row.model_id == model_id]
    first = ours[0]
    printed = theirs.pop((first.model, first.size), None) if _on_imagenet(first) else None
    cells.append([model_name(first, rows), *_in_turns(_measured(ours), _printed(printed))])
  empty: Row = [NO_RUN if on_imagenet else ''] * 4
  for (model, size), printed in theirs.items():
    if on_imagenet or model in _SHOWN_OF_TABLE_3:
      name = f'{model} at {size}{"" if on_imagenet else ", ImageNet"}'
      cells.append([name, *_in_turns(empty, _printed(printed))])
  titles = ['Real', 'Generated', 'Real + generated', 'Gain']
  return Table(
    'As Table 3 of the paper: top-1 (%) of each classifier',
    ['Model', *(name for title in titles for name in (f'{title}: here', 'the paper'))],
    cells,
    note='Of several numbers of images: the most real ones, the fewest synthetic ones. The paper: ImageNet, '
    '1.2M real and 1.2M generated images.',
    jobs=jobs_of(rows),
  )


def _measured(ours: Sequence[Accuracy]) -> Row:
  """Returns top-1 on real images, on synthetic ones, on both, and the gain, of one classifier."""
  real, synthetic, both = sets_of(ours)
  cells: Row = [NO_RUN if row is None else spread(row.top_1) for row in (real, synthetic, both)]
  return [*cells, str(both.gain_over(real)) if real and both else NO_RUN]


def _printed(of: dict[str, Any] | None) -> Row:
  """Returns the same four cells of the paper; empty where it has no such row."""
  if of is None:
    return [''] * 4
  return [*(f'{of[key]:.2f}' for key in ('real', 'generated', 'real_and_generated')), f'{of["gain"]:+.2f}']


def table_4(results: Results, rows: Sequence[Accuracy]) -> Table:
  """Returns accuracies as synthetic images are added: the paper's, and ours if they are of ImageNet."""
  sizes = (256, 1024)
  ours = _of_resnet_50(rows)
  real = next(iter(by_real_id(ours).values()), None)
  theirs = paper.tables()['table_4'].select()
  cells: list[Row] = []
  totals = dict.fromkeys(str(of['total_millions']) for of in theirs)
  for total in totals:
    times = round(float(total) / 1.2) - 1
    line: Row = [f'{total}M']
    for size in sizes:
      of = next(of for of in theirs if (str(of['total_millions']), of['image_size']) == (total, size))
      found = [
        row
        for row in ours
        if row.num_real and row.num_synthetic and row.finetuned
        if (_drawn_size(results, row), round(row.num_synthetic / row.num_real)) == (size, times)
      ]
      row = real if times == 0 else next(iter(found), None)
      line += [NO_RUN if row is None else spread(row.top_1)] if ours else []
      line.append(f'{of["top_1"]} ± {of["top_1_std"]}')
    cells.append(line)
  here = lambda size: [f'{size}x{size}: here', 'the paper'] if ours else [f'{size}x{size}, the paper']
  header = ['Real + generated', *(name for size in sizes for name in here(size))]
  return Table(
    'As Table 4 of the paper: top-1 (%) of ResNet-50, 1.2M real images of ImageNet and generated ones',
    header,
    cells,
    jobs=jobs_of(ours),
  )


def figure_6(row: Accuracy) -> list[tuple[float, float]]:
  """Returns the points (generated images, top-1 %) of the paper's Figure 6, if `row` is one of its kind."""
  if not _of_resnet_50([row]) or row.synthetic_size != 64:
    return []
  return [(1e6 * of['generated_millions'], of['top_1']) for of in paper.tables()['figure_6'].select()]


def _of_resnet_50(rows: Sequence[Accuracy]) -> list[Accuracy]:
  return [row for row in rows if row.model == 'ResNet-50' and _on_imagenet(row)]


def _on_imagenet(row: Accuracy) -> bool:
  """Returns whether a classifier was tested on ImageNet."""
  return row.test_data[0].startswith('imagenet2012')


def _drawn_size(results: Results, row: Accuracy) -> int | None:
  """Returns the size at which synthetic images were drawn, before they were reduced for classifiers."""
  for job in results.of_kind('reduce'):
    if job.name == row.summary['synthetic']:
      size: int = job.config['size']
      return size
  return row.synthetic_size


def _in_turns(ours: Sequence[str | None], theirs: Sequence[str | None]) -> Row:
  """Returns a cell of ours and one of theirs in turns."""
  return [cell for pair in zip(ours, theirs, strict=True) for cell in pair]
