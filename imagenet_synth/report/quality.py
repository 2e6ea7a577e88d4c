"""The report's section on evaluate jobs: FID and its companions, as the paper's Table 1 has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_synth.report import paper
from imagenet_synth.report.fid import fid_title, fids, how_measured
from imagenet_synth.report.page import NO_RUN, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, number, spread

# figures of a comparison with the main reference beside FID and KID, and their titles
_SIMILARITY = {'precision': 'Precision', 'recall': 'Recall', 'density': 'Density', 'coverage': 'Coverage'}

Row = list[str | None]


def quality(results: Results) -> Section | None:
  """Returns what the paper shows in Table 1: a table for each network whose features were taken.

  None where there is no evaluate job.
  """
  jobs = results.of_kind('evaluate')
  if not jobs:
    return None
  extractors = dict.fromkeys(job.result['extractor'] for job in jobs)
  tables = [_table([job for job in jobs if job.result['extractor'] == name]) for name in extractors]
  return Section('FID and KID, precision and recall, Inception Score', tables)


def _table(jobs: Sequence[FinishedJob]) -> Table:
  """Returns a row for each size of each evaluate job, of real images, of noise floors, and of the paper."""
  names = list(
    dict.fromkeys(name for job in jobs for at in job.result['sizes'].values() for name in fids(at))
  )
  rows: list[Row] = []
  for job in jobs:
    for size, at in job.result['sizes'].items():
      rows.append(_row(size, _samples_name(job), at, names))
  for size, at in jobs[0].result['sizes'].items():
    for name, real in at['real'].items():
      rows.append(_row(size, f'real {name} images', real, names))
  rows += _floors(jobs, names)
  rows += _of_the_paper(jobs, names)
  rows.sort(key=lambda row: int(str(row[0]).split('x')[0]))
  titles = ['KID', *_SIMILARITY.values()]
  first = next(iter(jobs[0].result['sizes'].values()))
  return Table(
    f'As Table 1 of the paper, by the features of {jobs[0].result["extractor"]}',
    ['Size', 'Images', *map(fid_title, names), *titles, 'Inception Score', 'Number'],
    rows,
    [i for i, row in enumerate(rows) if row[1] == 'fine-tuned' and NO_RUN not in row],
    f'{", ".join(titles)}: against {names[0].removeprefix("fid_")}, of as many images each; k = 3 for '
    'precision and recall, 5 for density and coverage. IS: mean ± standard deviation over '
    f'{jobs[0].config.get("num_splits", 10)} splits. {how_measured(jobs[0], first)} The paper measures '
    'ImageNet by Inception-v3: what is of other data, or by other features, does not compare with it.',
    [job.name for job in jobs],
  )


def _samples_name(job: FinishedJob) -> str:
  """Returns what is said of the images that an evaluate job has measured."""
  names = {True: 'fine-tuned', False: 'not fine-tuned', None: job.result['samples']}
  return names[job.result['finetuned']]


def _row(size: str, what: str, at: Mapping[str, Any], names: Sequence[str]) -> Row:
  """Returns the cells of images at a size: FIDs, what is compared with the main reference, IS, number."""
  return [
    f'{size}x{size}',
    what,
    *(number(at[name]) if name in at else '' for name in names),
    number(at['kid']) if 'kid' in at else '',
    *(f'{at[name]:.3f}' if name in at else '' for name in _SIMILARITY),
    spread((at['is'], at['is_std'])) if 'is' in at else '',
    f'{at["num_samples"]:,}',
  ]


def _floors(jobs: Sequence[FinishedJob], names: Sequence[str]) -> list[Row]:
  """Returns the noise floors as rows of the table of quality: one for each size and number of images."""
  floors = {
    (size, at['num_samples']): [at.get(name.replace('fid_', 'floor_', 1)) for name in names]
    for job in reversed(jobs)
    for size, at in job.result['sizes'].items()
  }
  return [
    [
      f'{size}x{size}',
      'noise floor: as many real ones',
      *('' if floor is None else number(floor) for floor in cells),
      *[''] * (len(_SIMILARITY) + 2),
      f'{num:,}',
    ]
    for (size, num), cells in floors.items()
    if any(floor is not None for floor in cells)
  ]


def _of_the_paper(jobs: Sequence[FinishedJob], names: Sequence[str]) -> list[Row]:
  """Returns the paper's rows; of ImageNet, rows for the images that it has measured and nobody here has."""
  rows: list[Row] = []
  measured = {int(size) for job in jobs for size in job.result['sizes']}
  references = [of for job in jobs for of in job.config.get('references', {}).values()]
  on_imagenet = any(of['name'] == 'imagenet2012' for of in references)
  blank = [''] * (len(_SIMILARITY) + 1)
  for of in paper.tables()['table_1'].select():
    if not of['model'].startswith('Ours'):
      continue
    size = f'{of["image_size"]}x{of["image_size"]}'
    if on_imagenet and of['image_size'] not in measured:
      rows.append([size, 'fine-tuned', *[NO_RUN] * len(names), *blank, NO_RUN, ''])
    theirs = ['' if of.get(name) is None else number(of[name]) for name in names]
    score = f'{of["inception_score"]} ± {of["inception_score_std"]}'
    rows.append([size, 'the paper', *theirs, *blank, score, ''])
  return rows
