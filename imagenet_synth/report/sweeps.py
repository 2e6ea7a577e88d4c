"""The report's section on sampler settings: each sweep's trials, as the paper's Figures 3 and 4 show them.

Instead of a section, None is returned where no job was run that it could be about.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from imagenet_synth.report import figures, paper
from imagenet_synth.report.fid import (
  close_to_best,
  fid_title,
  fids,
  how_measured,
  inception_score,
  undecided_note,
)
from imagenet_synth.report.page import Block, Heading, Picture, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, number, percent, spread


def sweeps(results: Results) -> Section | None:
  """Returns a table for each sweep job, and what the paper shows in Figures 3 and 4."""
  blocks: list[Block] = []
  jobs = results.of_kind('sweep')
  for stage in dict.fromkeys(job.result['stages'][-1]['run'] for job in jobs):
    blocks += _by_evaluations([job for job in jobs if job.result['stages'][-1]['run'] == stage], stage)
  for job in jobs:
    # the pictures of one sweep stay apart from those of the next
    blocks += [Heading(job.name)] if len(jobs) > 1 else []
    blocks += [*_pictures(job), _table(job)]
  return Section('Sampler settings, swept', blocks) if blocks else None


def _table(job: FinishedJob) -> Table:
  """Returns a row for each trial; those that cannot be told from the best one stand out."""
  grid, rows = list(job.config['grid']), job.result['rows']
  close = _close_trials(job)
  columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
    *(
      (name.replace('_', ' ').capitalize(), lambda row, name=name: _setting(name, row[name])) for name in grid
    ),
    *((fid_title(name), lambda row, name=name: number(row[name])) for name in fids(rows[0])),
    ('Inception Score', inception_score),
  ]
  if 'recall' in rows[0]:
    columns.append(('Recall', lambda row: number(row['recall'])))
  if 'cas' in rows[0]:
    columns.append(('CAS (%)', lambda row: spread(percent(row['cas']['top_1']))))
  # an earlier version did not count them
  if len({row.get('evaluations') for row in rows}) > 1:
    columns.append(('Evaluations an image', lambda row: f'{row["evaluations"]:,}'))
  columns.append(('Samples', lambda row: f'{row["num_samples"]:,}'))
  header, cells = [title for title, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
  saved = job.result['num_without_halving'] - job.result['num_drawn']
  halving = (
    f' Successive halving: {job.result["num_drawn"]:,} images drawn instead of '
    f'{job.result["num_without_halving"]:,}; figures of few samples do not compare with those of many.'
    if saved
    else ''
  )
  note = f'{undecided_note(close, job.result["choose"])}{how_measured(job, rows[close[0]])}{halving}'
  swept = job.result['stages'][-1]['run']
  caption = f'{job.name}: sampler of {swept}, chosen by {_chosen_by(job)}'
  return Table(caption, header, cells, close, note, [job.name])


def _chosen_by(job: FinishedJob) -> str:
  """Returns what the settings are chosen by, as the table's header has it."""
  choose: str = job.result['choose']
  return 'CAS' if choose == 'cas' else fid_title(choose)


def _close_trials(job: FinishedJob) -> list[int]:
  """Returns the trials that cannot be told from the best one in what they are chosen by, itself among them.

  Only those on as many samples as the best one are compared.
  """
  rows = job.result['rows']
  most = max(row['num_samples'] for row in rows)
  last = [i for i, row in enumerate(rows) if row['num_samples'] == most]
  return [last[place] for place in close_to_best([rows[i] for i in last], job.result['choose'])]


def _setting(name: str, value: Any) -> str:
  """Returns the value of a field of `SamplerSettings` as text."""
  if value is None:
    return {'logvar': 'learned', 'guidance_interval': 'all', 'num_steps': "the spacing's"}[name]
  if isinstance(value, (list, tuple)):
    return ' to '.join(f'{of:g}' for of in value)
  return value if isinstance(value, str) else f'{value:g}'


def _by_evaluations(jobs: Sequence[FinishedJob], stage: str) -> list[Picture]:
  """Returns CAS by evaluations of a stage's network, where sweeps have tried several numbers of steps."""
  # an earlier version did not count evaluations
  shown = {'num_steps', 'cas', 'evaluations'}
  swept = [job for job in jobs if shown <= job.result['rows'][0].keys()]
  lines: dict[str, list[tuple[float, float, float | None]]] = {}
  for job in swept:
    others = [name for name in job.config['grid'] if name != 'num_steps']
    for row in job.result['rows']:
      line = ', '.join(
        [job.name, *(f'{name.replace("_", " ")} {_setting(name, row[name])}' for name in others)]
      )
      lines.setdefault(line, []).append((row['evaluations'], *percent(row['cas']['top_1'])))
  if not lines:
    return []
  real = percent(swept[0].result['cas_real']['top_1'])
  said = '; '.join(
    f'{name}: ' + ', '.join(f'{spread((mean, std))} at {num:g}' for num, mean, std in points)
    for name, points in lines.items()
  )
  return [
    Picture(
      f'{stage}_evaluations',
      figures.cas_evaluations(lines, real),
      f'What images of {stage} are worth by what they cost. Bars: ± 1 standard deviation over seeds.',
      f'Classification accuracy score in percent by evaluations of the network for an image. {said}. A '
      f'dotted line: real images, {spread(real)}.',
      [job.name for job in swept],
    )
  ]


def _pictures(job: FinishedJob) -> list[Picture]:
  """Returns the paper's Figures 3 and 4, as far as the grid has what they show."""
  swept = set(job.config['grid'])
  references = job.config['references']
  on_imagenet = any(of['name'] == 'imagenet2012' for of in references.values())
  names = fids(job.result['rows'][0])
  # the main reference comes first
  main, second = names[0], 'fid_validation' if 'fid_validation' in names else names[0]
  pictures: list[Picture] = []

  def theirs(name: str) -> Sequence[dict[str, Any]]:
    return paper.tables()[name].select() if on_imagenet else ()

  def add(name: str, figure: Figure, what: str, caption: str, seen: str) -> None:
    caption = ' '.join(filter(None, (f'As {what} of the paper.', caption)))
    pictures.append(Picture(f'{job.name}_{name}', figure, caption, seen, [job.name]))

  if {'guidance', 'logvar'} <= swept:
    rows, caption = _slice(job, 'guidance', 'logvar')
    lines, their_lines = (
      _lines(rows, 'guidance', second),
      _lines(theirs('figure_3_left'), 'guidance', 'fid_validation'),
    )
    decided = len(_close_trials(job)) == 1 and job.result['choose'] == second
    seen = f'{fid_title(second)} by guidance, a line for each log-variance coefficient. {_said_lines(lines)}'
    add('fid', figures.guidance_fid(lines, their_lines, decided), 'Figure 3, left,', caption, seen)
  elif 'guidance' in swept:
    rows, caption = _slice(job, 'guidance')
    columns = ['guidance', main, 'inception_score']
    their_columns = ['guidance', 'fid_train', 'inception_score']
    if 'is' in rows[0]:
      points = _points(rows, *columns)
      add(
        'fid_is',
        figures.fid_is(points, _points(theirs('figure_3_center'), *their_columns)),
        'Figure 3, center,',
        caption,
        f'Inception Score against {fid_title(main)}, a mark for each guidance weight: '
        + '; '.join(f'{w:g}: FID {number(fid)}, score {number(score)}' for w, fid, score in points)
        + '.',
      )
    if 'cas' in rows[0]:
      real = percent(job.result['cas_real']['top_1'])
      cas = _points(rows, 'guidance', 'top_1', 'top_1_std')
      add(
        'cas',
        figures.guidance_cas(cas, real, _points(theirs('figure_3_right'), 'guidance', 'top_1')),
        'Figure 3, right,',
        caption,
        'Classification accuracy score in percent by guidance: '
        + '; '.join(f'{spread((mean, std))} at {w:g}' for w, mean, std in cas)
        + f'. A dotted line: real images, {spread(real)}.',
      )
  if {'noise_augmentation', 'logvar'} <= swept and 'cas' in job.result['rows'][0]:
    rows, caption = _slice(job, 'noise_augmentation', 'logvar')
    columns, their_columns = ['augmentation', main, 'top_1'], ['augmentation', 'fid_train', 'top_1']
    by_logvar = _lines(rows, *columns)
    said = '; '.join(
      f'{logvar:g}: '
      + ', '.join(f'{number(fid)} and {cas:.2f} at noise {level:g}' for level, fid, cas in points)
      for logvar, points in by_logvar.items()
    )
    add(
      'cas_fid',
      figures.cas_fid(by_logvar, _lines(theirs('figure_4'), *their_columns)),
      'Figure 4',
      caption,
      f'CAS in percent against {fid_title(main)}, a line for each log-variance coefficient. FID and CAS of '
      f'{said}.',
    )
  return pictures


def _said_lines(lines: Mapping[float, Sequence[tuple[float, float]]]) -> str:
  """Returns the points of all lines in words."""
  return (
    '; '.join(
      f'{logvar:g}: ' + ', '.join(f'{number(y)} at {x:g}' for x, y in points)
      for logvar, points in lines.items()
    )
    + '.'
  )


def _slice(job: FinishedJob, *shown: str) -> tuple[list[dict[str, Any]], str]:
  """Returns the trials that differ in `shown` alone, and a caption.

  They are those on the full number of samples, with the values of the best trial in all other settings.
  Their values have the names of the paper's columns as well.
  """
  fixed = {name: value for name, value in job.result['best'].items() if name not in shown}
  most = max(row['num_samples'] for row in job.result['rows'])
  rows = []
  for row in job.result['rows']:
    if row['num_samples'] == most and all(row[name] == value for name, value in fixed.items()):
      names = {'inception_score': row.get('is'), 'augmentation': row.get('noise_augmentation')}
      if 'cas' in row:
        names |= dict(zip(('top_1', 'top_1_std'), percent(row['cas']['top_1'])))
      rows.append(row | names)
  others = ', '.join(f'{name.replace("_", " ")} {_setting(name, value)}' for name, value in fixed.items())
  return rows, f'At {others}.' if others else ''


def _points(rows: Sequence[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
  """Returns the values of these columns in each row."""
  return [tuple(row[name] for name in columns) for row in rows]


def _lines(rows: Sequence[dict[str, Any]], *columns: str) -> dict[float, list[tuple[Any, ...]]]:
  """Returns the points of each log-variance coefficient."""
  return {
    logvar: _points([row for row in rows if row['logvar'] == logvar], *columns)
    for logvar in sorted({row['logvar'] for row in rows if row['logvar'] is not None})
  }
