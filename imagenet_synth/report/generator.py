"""The report's sections on the generator: samples, quality, sweeps, selection, training.

Instead of a section, None is returned where no job was run that it could be about.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from imagenet_synth.core.config import build
from imagenet_synth.core.files import matching, read_json
from imagenet_synth.data.batches import resize
from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.records import ShardSource
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.metrics.uncertainty import undecided
from imagenet_synth.report import figures, paper
from imagenet_synth.report.page import Block, Paragraph, Picture, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, is_finetuned, number, percent, spread

_NUM_SHOWN_CLASSES, _NUM_SHOWN_EACH = 10, 6

# figures of a comparison with the main reference beside FID and KID, and their titles
_SIMILARITY = {'precision': 'Precision', 'recall': 'Recall', 'density': 'Density', 'coverage': 'Coverage'}


def samples(results: Results) -> Section | None:
  """Returns what the paper shows in Figure 2: a row for each class, real images beside generated ones."""
  jobs = results.of_kind('generate')
  if not jobs:
    return None
  names = _class_names(jobs[0])
  places = np.linspace(0, len(names) - 1, min(_NUM_SHOWN_CLASSES, len(names))).astype(int)
  shown = [names[place] for place in places]
  seeds = ', '.join(f'{job.name}: seed {job.config.get("seed", 0)}' for job in jobs)
  size = _shown_size(jobs)
  return Section(
    'Samples',
    [
      Picture(
        'samples',
        sample_grid(results, shown),
        f'The first {_NUM_SHOWN_EACH} of each class at {size}x{size}, not picked ({seeds}). A row a class: '
        'real training images, then generated ones.',
      )
    ],
  )


def _shown_size(jobs: Sequence[FinishedJob]) -> int:
  """Returns the largest size that all generate jobs reach; images of others are made smaller to it."""
  return min(job.result['sizes'][-1] for job in jobs)


def sample_grid(results: Results, class_names: Sequence[str]) -> Image.Image:
  """Returns a row for each of the classes: real training images, then those of each generate job.

  Classes go by the names that their data set has for them: jobs may count them in different orders.
  """
  jobs = sorted(results.of_kind('generate'), key=lambda job: not is_finetuned(job))
  dataset = build(DatasetConfig, jobs[0].config['dataset'], f'{jobs[0].name}.dataset')
  size = _shown_size(jobs)
  groups = [('real', _first_real(dataset.open(results.folder), size, class_names))]
  for job in jobs:
    made, _ = class_plan(job.result['class_counts'])
    source = ShardSource(matching(job.path / str(job.result['sizes'][-1]), '*.tfrecord'))
    labels = {name: label for label, name in enumerate(_class_names(job))}
    of_class = [np.flatnonzero(made == labels.get(name, -1))[:_NUM_SHOWN_EACH] for name in class_names]
    rows = [[resize(source[i]['image'], size) for i in indices] for indices in of_class]
    groups.append(('fine-tuned' if is_finetuned(job) else 'not fine-tuned', rows))
  blank = np.full_like(next(picture for _, rows in groups for row in rows for picture in row), 255)
  tiles: list[list[np.ndarray]] = [[] for _ in class_names]
  heads: list[str] = []
  for name, group in groups:
    for row, pictures in zip(tiles, group):
      # a class may have fewer than are shown, or none
      row += [*pictures, *[blank] * (_NUM_SHOWN_EACH - len(pictures)), blank]
    heads += [''] * (_NUM_SHOWN_EACH // 2) + [name] + [''] * (_NUM_SHOWN_EACH - _NUM_SHOWN_EACH // 2)
  return figures.image_grid(
    np.array(tiles)[:, :-1], [class_name_and_wnid(name)[0] for name in class_names], heads[:-1]
  )


def _first_real(source: Source, size: int, class_names: Sequence[str]) -> list[list[np.ndarray]]:
  """Returns the first images of each class; reads no more than it takes to find them."""
  labels = {name: label for label, name in enumerate(source.class_names)}
  found: dict[int, list[np.ndarray]] = {labels[name]: [] for name in class_names if name in labels}
  for i in range(len(source)):
    example = source[i]
    pictures = found.get(example['label'])
    if pictures is not None and len(pictures) < _NUM_SHOWN_EACH:
      pictures.append(resize(example['image'], size))
      if all(len(pictures) == _NUM_SHOWN_EACH for pictures in found.values()):
        break
  return [found[labels[name]] if name in labels else [] for name in class_names]


def _class_names(job: FinishedJob) -> list[str]:
  """Returns the classes of a generate job's images in the order of their labels, as the data set has them."""
  names: list[str] = read_json(job.path / 'manifest.json')['class_names']
  return names


def training(results: Results) -> Section | None:
  """Returns a row for each stage that was trained."""
  jobs = results.of_kind('pretrain', 'finetune')
  rows = [
    [
      job.name,
      job.config.get('init', 'random weights'),
      _trained_on(job),
      job.config['optimizer']['name'],
      f'{job.config["num_steps"]:,}',
      f'{job.config["batch_size"]:,}',
      f'{job.result["num_params"]:,}',
      f'{_loss(job):.4f}',
      f'{job.seconds:.0f}',
    ]
    for job in jobs
  ]
  header = [
    'Stage',
    'Starts from',
    'Data',
    'Optimizer',
    'Steps',
    'Batch size',
    'Parameters',
    'Loss',
    'Seconds',
  ]
  note = (
    'Loss: mean over the last quarter of the steps. Text encoder and stages without a fine-tuning '
    'job stay frozen.'
  )
  return Section('Training', [Table(header, rows, note=note)]) if jobs else None


def _trained_on(job: FinishedJob) -> str:
  """Returns the data sets of a training job, with the shares of those that are blended in."""
  others = [
    f'{part["dataset"]["name"]} ({100 * part["share"]:.3g} %)' for part in job.config.get('blend', ())
  ]
  return ', '.join([job.config['dataset']['name'], *others])


def _loss(job: FinishedJob) -> float:
  """Returns the mean loss over the last quarter of the steps."""
  lines = [json.loads(line) for line in (job.path / 'metrics.jsonl').read_text().splitlines()]
  return float(np.mean([line['loss'] for line in lines if line['step'] > 0.75 * job.config['num_steps']]))


def selection(results: Results) -> Section | None:
  """Returns a table for each select job: its checkpoints, their FID, and their CAS where it was measured."""
  blocks = []
  for job in results.of_kind('select'):
    curve, choose = job.result['curve'], job.result['choose']
    # the run whose checkpoints are compared comes last, behind what other jobs have handed on
    run, has_cas = curve[-1]['run'], 'cas' in curve[0]
    rows = [
      [_checkpoint(point, run), number(point['fid_validation']), _score(point)]
      + ([spread(percent(point['cas']['top_1']))] if has_cas else [])
      for point in curve
    ]
    close = _close(curve, 'cas' if choose == 'cas' else 'fid_validation', job)
    header = ['Step', 'Validation FID', 'Inception Score'] + (['CAS (%)'] if has_cas else [])
    note = (
      f'{job.name}: checkpoints of {run}, chosen by {choose.upper()}. Step {_checkpoint(job.result, run)} is '
      f'used on. {_undecided_note(close, choose)}{_caption(job, curve[0])}'
    )
    blocks.append(Table(header, rows, close, note))
  return Section('Checkpoints, selected', blocks) if blocks else None


def _checkpoint(of: Mapping[str, Any], run: str) -> str:
  """Returns a checkpoint's step, with the run that it is of if that is another one than `run`."""
  return f'{of["step"]}' if of['run'] == run else f'{of["step"]} of {of["run"]}'


def sweeps(results: Results) -> Section | None:
  """Returns a table for each sweep job, and what the paper shows in Figures 3 and 4."""
  blocks: list[Block] = []
  for job in results.of_kind('sweep'):
    grid, rows = list(job.config['grid']), job.result['rows']
    swept = job.result['stages'][-1]['run']
    close = _close_trials(job)
    blocks += _sweep_pictures(job)
    has_cas, fids = 'cas' in rows[0], _fids(rows[0])
    cells = [
      [_setting(row[name]) for name in grid]
      + [*(number(row[name]) for name in fids), _score(row)]
      + ([spread(percent(row['cas']['top_1']))] if has_cas else [])
      + [f'{row["num_samples"]:,}']
      for row in rows
    ]
    header = (
      [name.replace('_', ' ') for name in grid]
      + [_fid_title(name) for name in fids]
      + ['Inception Score']
      + (['CAS (%)'] if has_cas else [])
      + ['Samples']
    )
    saved = job.result['num_without_halving'] - job.result['num_drawn']
    halving = (
      (
        f' Successive halving: {job.result["num_drawn"]:,} images drawn instead of '
        f'{job.result["num_without_halving"]:,}; figures of few samples do not compare with '
        'those of many.'
      )
      if saved
      else ''
    )
    note = (
      f'{job.name}, sampler of {swept}, chosen by {job.result["choose"]}. '
      f'{_undecided_note(close, job.result["choose"])}{_caption(job, rows[close[0]])}'
    )
    blocks.append(Table(header, cells, close, note + halving))
  return Section('Sampler settings, swept', blocks) if blocks else None


def _close_trials(job: FinishedJob) -> list[int]:
  """Returns the trials that cannot be told from the best one in what they are chosen by, itself among them.

  Only those on as many samples as the best one are compared.
  """
  rows = job.result['rows']
  most = max(row['num_samples'] for row in rows)
  last = [i for i, row in enumerate(rows) if row['num_samples'] == most]
  return [last[place] for place in _close([rows[i] for i in last], job.result['choose'], job)]


def _close(rows: Sequence[Mapping[str, Any]], choose: str, job: FinishedJob) -> list[int]:
  """Returns the places of the rows of figures that cannot be told from the best one, itself among them.

  Args:
    rows: figures of as many samples each.
    choose: the figure that counts: 'cas', or a FID.
    job: which has measured them.
  """
  if choose == 'cas':
    cas = [percent(row['cas']['top_1']) for row in rows]
    return undecided([-mean for mean, _ in cas], [std or 0.0 for _, std in cas])
  floor = rows[0].get(f'floor_{choose.removeprefix("fid_")}', 0.0)
  return undecided([row[choose] for row in rows], floor)


def _undecided_note(close: Sequence[int], choose: str) -> str:
  """Returns a sentence where several cannot be told apart by the figure that one was chosen by."""
  if len(close) < 2:
    return ''
  what, noise = ('CAS', 'the spread over seeds') if choose == 'cas' else ('FID', 'the noise floor')
  return f'Undecided between {len(close)}: their {what} differs by less than {noise}. '


def _score(figures_of: Mapping[str, Any]) -> str:
  """Returns the Inception Score as text; of a network that tells no classes there is none."""
  return number(figures_of['is']) if 'is' in figures_of else ''


def _fids(figures_of: Mapping[str, Any]) -> list[str]:
  """Returns the names of the FIDs among figures, in their order."""
  return [name for name in figures_of if name.startswith('fid_')]


def _fid_title(name: str) -> str:
  """Returns 'Train FID' for 'fid_train'."""
  return f'{name.removeprefix("fid_").capitalize()} FID'


def _setting(value: float | str | None) -> str:
  """Returns a setting as text; None is the variance that a network has learned."""
  if value is None:
    return 'learned'
  return value if isinstance(value, str) else f'{value:g}'


def _sweep_pictures(job: FinishedJob) -> list[Picture]:
  """Returns the paper's Figures 3 and 4, as far as the grid has what they show."""
  swept = set(job.config['grid'])
  references = job.config['references']
  on_imagenet = any(of['name'] == 'imagenet2012' for of in references.values())
  fids = _fids(job.result['rows'][0])
  # the main reference comes first
  main, second = fids[0], 'fid_validation' if 'fid_validation' in fids else fids[0]
  pictures: list[Picture] = []

  def theirs(name: str) -> Sequence[dict[str, Any]]:
    return paper.tables()[name].select() if on_imagenet else ()

  def add(name: str, figure: Figure, what: str, caption: str) -> None:
    pictures.append(Picture(f'{job.name}_{name}', figure, f'As {what} of the paper. {caption}'))

  if {'guidance', 'logvar'} <= swept:
    rows, caption = _slice(job, 'guidance', 'logvar')
    lines, their_lines = (
      _lines(rows, 'guidance', second),
      _lines(theirs('figure_3_left'), 'guidance', 'fid_validation'),
    )
    decided = len(_close_trials(job)) == 1 and job.result['choose'] == second
    add('fid', figures.guidance_fid(lines, their_lines, ring=decided), 'Figure 3, left,', caption)
  elif 'guidance' in swept:
    rows, caption = _slice(job, 'guidance')
    columns = ['guidance', main, 'inception_score']
    their_columns = ['guidance', 'fid_train', 'inception_score']
    if 'is' in rows[0]:
      add(
        'fid_is',
        figures.fid_is(_points(rows, *columns), _points(theirs('figure_3_center'), *their_columns)),
        'Figure 3, center,',
        caption,
      )
    if 'cas' in rows[0]:
      real = percent(job.result['cas_real']['top_1'])
      add(
        'cas',
        figures.guidance_cas(
          _points(rows, 'guidance', 'top_1', 'top_1_std'),
          real=real,
          paper=_points(theirs('figure_3_right'), 'guidance', 'top_1'),
        ),
        'Figure 3, right,',
        caption,
      )
  if {'noise_augmentation', 'logvar'} <= swept and 'cas' in job.result['rows'][0]:
    rows, caption = _slice(job, 'noise_augmentation', 'logvar')
    columns, their_columns = ['augmentation', main, 'top_1'], ['augmentation', 'fid_train', 'top_1']
    add(
      'cas_fid',
      figures.cas_fid(_lines(rows, *columns), _lines(theirs('figure_4'), *their_columns)),
      'Figure 4',
      caption,
    )
  return pictures


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
  others = ', '.join(f'{name.replace("_", " ")} {_setting(value)}' for name, value in fixed.items())
  return rows, f'{f"At {others}. " if others else ""}{_caption(job, rows[0])}'


def _points(rows: Sequence[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
  """Returns the values of these columns in each row."""
  return [tuple(row[name] for name in columns) for row in rows]


def _lines(rows: Sequence[dict[str, Any]], *columns: str) -> dict[float, list[tuple[Any, ...]]]:
  """Returns the points of each log-variance coefficient."""
  return {
    logvar: _points([row for row in rows if row['logvar'] == logvar], *columns)
    for logvar in sorted({row['logvar'] for row in rows if row['logvar'] is not None})
  }


def quality(results: Results) -> Section | None:
  """Returns what the paper shows in Table 1: a table for each network whose features were taken."""
  jobs = results.of_kind('evaluate')
  if not jobs:
    return None
  extractors = dict.fromkeys(job.result['extractor'] for job in jobs)
  tables = [_quality_table([job for job in jobs if job.result['extractor'] == name]) for name in extractors]
  theirs = [row for row in paper.tables()['table_1'].select() if str(row['model']).startswith('Ours')]
  text = (
    'The paper, ImageNet, Inception-v3 features: '
    + '; '.join(
      f'{row["image_size"]}x{row["image_size"]} train FID {row["fid_train"]}, validation FID '
      f'{row["fid_validation"]}, IS {row["inception_score"]} ± {row["inception_score_std"]}'
      for row in theirs
    )
    + '.'
  )
  return Section('FID and KID, precision and recall, Inception Score', [*tables, Paragraph(text)])


def _quality_table(jobs: Sequence[FinishedJob]) -> Table:
  """Returns a row for each size of each evaluate job, of real images, and of noise floors."""
  fids = list(
    dict.fromkeys(name for job in jobs for at in job.result['sizes'].values() for name in _fids(at))
  )
  rows = []
  for job in jobs:
    for size, at in job.result['sizes'].items():
      rows.append(_quality_row(size, _samples_name(job), at, fids))
  for size, at in jobs[0].result['sizes'].items():
    for name, real in at['real'].items():
      rows.append(_quality_row(size, f'real {name} images', real, fids))
  rows += _floor_rows(jobs, fids)
  rows.sort(key=lambda row: int(row[0].split('x')[0]))
  titles = ['KID', *_SIMILARITY.values()]
  first = next(iter(jobs[0].result['sizes'].values()))
  return Table(
    ['Size', 'Images', *map(_fid_title, fids), *titles, 'Inception Score', 'Number'],
    rows,
    [i for i, row in enumerate(rows) if row[1] == 'fine-tuned'],
    f'{", ".join(titles)}: against {fids[0].removeprefix("fid_")}, of as many images each; k = 3 for '
    'precision and recall, 5 for density and coverage. IS: mean ± standard deviation over '
    f'{jobs[0].config.get("num_splits", 10)} splits. {_caption(jobs[0], first)}',
  )


def _samples_name(job: FinishedJob) -> str:
  """Returns what is said of the images that an evaluate job has measured."""
  names = {True: 'fine-tuned', False: 'not fine-tuned', None: job.result['samples']}
  return names[job.result['finetuned']]


def _quality_row(size: str, what: str, at: Mapping[str, Any], fids: Sequence[str]) -> list[str]:
  """Returns the cells of images at a size: FIDs, what is compared with the main reference, IS, number."""
  return [
    f'{size}x{size}',
    what,
    *(number(at[name]) if name in at else '' for name in fids),
    number(at['kid']) if 'kid' in at else '',
    *(f'{at[name]:.3f}' if name in at else '' for name in _SIMILARITY),
    spread((at['is'], at['is_std'])) if 'is' in at else '',
    f'{at["num_samples"]:,}',
  ]


def _floor_rows(jobs: Sequence[FinishedJob], fids: Sequence[str]) -> list[list[str]]:
  """Returns the noise floors as rows of the table of quality: one for each size and number of images."""
  floors = {
    (size, at['num_samples']): [at.get(name.replace('fid_', 'floor_', 1)) for name in fids]
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


def _caption(job: FinishedJob, measured: dict[str, Any]) -> str:
  """Returns on what, and how well, FID and Inception Score were measured."""
  warning = f'; {measured["warning"]}' if 'warning' in measured else ''
  floors = ', '.join(
    f'{name.removeprefix("floor_")} {number(value)}'
    for name, value in measured.items()
    if name.startswith('floor_')
  )
  said = f' Noise floor, the FID that as many real images would have: {floors}.' if floors else ''
  return (
    f'{measured["num_samples"]:,} samples, features of {job.result["extractor"]}{warning}.{said}'
    f'{_warning(job)}'
  )


def _warning(job: FinishedJob) -> str:
  """Returns what must be said where the extractor itself is hardly better than guessing."""
  return f' {job.result["doubt"]}.' if job.result.get('doubt') else ''
