"""The report's sections on the generator: samples, quality, sweeps, selection, training.

A section that has no job to tell of is None.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from imagenet_synth import paper
from imagenet_synth.core.config import build
from imagenet_synth.data.pipeline import ExampleSource, resize
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs import figures
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.jobs.page import Paragraph, Picture, Section, Table
from imagenet_synth.jobs.plan import class_plan
from imagenet_synth.jobs.report_work import Finished, Work, number, percent, spread
from imagenet_synth.prompts import class_name_and_wnid

_NUM_SHOWN_CLASSES, _NUM_SHOWN_EACH = 10, 6


def samples(work: Work) -> Section | None:
  """The paper's Figure 2: rows of a class, real images beside generated ones."""
  jobs = work.of_kind('generate')
  if not jobs:
    return None
  num_classes = len(jobs[0].result['class_counts'])
  shown = np.linspace(0, num_classes - 1, min(_NUM_SHOWN_CLASSES, num_classes)).astype(int)
  seeds = ', '.join(f'{job.name}: seed {job.config.get("seed", 0)}' for job in jobs)
  size = jobs[0].result['sizes'][-1]
  return Section(
    'Samples',
    [
      Picture(
        'samples',
        sample_grid(work, shown),
        f'The first {_NUM_SHOWN_EACH} of each class at {size}x{size}, not picked ({seeds}). A row a class: '
        'real training images, then generated ones.',
      )
    ],
  )


def sample_grid(work: Work, classes: Sequence[int]) -> Image.Image:
  """A row for each of the classes: real training images, then those of each generate job."""
  jobs = sorted(work.of_kind('generate'), key=lambda job: not work.is_finetuned(job.name, job.name))
  dataset = build(DatasetConfig, jobs[0].config['dataset'], f'{jobs[0].name}.dataset')
  size = jobs[0].result['sizes'][-1]
  groups = [('real', _first_real(open_dataset(dataset, work.folder), size, classes))]
  for job in jobs:
    made, _ = class_plan(job.result['class_counts'])
    source = ShardSource(sorted((job.path / str(size)).glob('*.tfrecord')))
    rows = [[source[i]['image'] for i in np.flatnonzero(made == c)[:_NUM_SHOWN_EACH]] for c in classes]
    groups.append(('fine-tuned' if work.is_finetuned(job.name, job.name) else 'not fine-tuned', rows))
  blank = np.full_like(groups[0][1][0][0], 255)
  tiles, heads = [[] for _ in classes], []
  for name, group in groups:
    for row, pictures in zip(tiles, group):
      # a class may have fewer than are shown
      row += [*pictures, *[blank] * (_NUM_SHOWN_EACH - len(pictures)), blank]
    heads += [''] * (_NUM_SHOWN_EACH // 2) + [name] + [''] * (_NUM_SHOWN_EACH - _NUM_SHOWN_EACH // 2)
  names = _class_names(jobs[0])
  return figures.image_grid(np.array(tiles)[:, :-1], [names[c] for c in classes], heads[:-1])


def _first_real(source: ExampleSource, size: int, classes: Sequence[int]) -> list[list[np.ndarray]]:
  """The first images of each class; reads no more than it takes to find them."""
  found = {int(c): [] for c in classes}
  for i in range(len(source)):
    example = source[i]
    pictures = found.get(example['label'])
    if pictures is not None and len(pictures) < _NUM_SHOWN_EACH:
      pictures.append(resize(example['image'], size))
      if all(len(pictures) == _NUM_SHOWN_EACH for pictures in found.values()):
        break
  return [found[int(c)] for c in classes]


def _class_names(job: Finished) -> list[str]:
  names = json.loads((job.path / 'manifest.json').read_text())['class_names']
  return [class_name_and_wnid(name)[0] for name in names]


def training(work: Work) -> Section | None:
  jobs = work.of_kind('pretrain', 'finetune')
  rows = [
    [
      job.name,
      job.config.get('init', 'random weights'),
      job.config['dataset']['name'],
      job.config['optimizer']['name'],
      f'{job.config["num_steps"]:,} of {job.config["batch_size"]}',
      f'{job.result["num_params"]:,}',
      f'{_loss(job):.4f}',
      f'{job.seconds:.0f}',
    ]
    for job in jobs
  ]
  header = ['Stage', 'Starts from', 'Data', 'Optimizer', 'Steps', 'Parameters', 'Loss', 'Seconds']
  note = (
    'Loss: mean over the last quarter of the steps. Text encoder and stages without a fine-tuning '
    'job stay frozen.'
  )
  return Section('Training', [Table(header, rows, note=note)]) if jobs else None


def _loss(job: Finished) -> float:
  lines = [json.loads(line) for line in (job.path / 'metrics.jsonl').read_text().splitlines()]
  return float(np.mean([line['loss'] for line in lines if line['step'] > 0.75 * job.config['num_steps']]))


def selection(work: Work) -> Section | None:
  blocks = []
  for job in work.of_kind('select'):
    curve, chosen = job.result['curve'], job.result['selected']
    rows = [[str(point['step']), number(point['fid_validation']), number(point['is'])] for point in curve]
    strong = [i for i, point in enumerate(curve) if point['step'] == chosen['step']]
    blocks.append(
      Table(
        ['Step', 'Validation FID', 'Inception Score'],
        rows,
        strong,
        f'{job.name}: checkpoints of {chosen["weights"]}. {_caption(job, curve[0])}',
      )
    )
  return Section('Checkpoints, selected by FID', blocks) if blocks else None


def sweeps(work: Work) -> Section | None:
  blocks = []
  for job in work.of_kind('sweep'):
    grid, rows = list(job.config['grid']), job.result['rows']
    swept = job.result['stages'][-1]['run']
    best = [
      i for i, row in enumerate(rows) if all(row[name] == value for name, value in job.result['best'].items())
    ]
    blocks += _sweep_pictures(job)
    has_cas = 'cas' in rows[0]
    cells = [
      [_setting(row[name]) for name in grid]
      + [number(row[name]) for name in ('fid_train', 'fid_validation', 'is')]
      + ([spread(percent(row['cas']['top_1']))] if has_cas else [])
      + [f'{row["num_samples"]:,}']
      for row in rows
    ]
    header = (
      [name.replace('_', ' ') for name in grid]
      + ['Train FID', 'Validation FID', 'Inception Score']
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
    note = f'{job.name}, sampler of {swept}: best in {job.result["choose"]}. {_caption(job, rows[0])}'
    blocks.append(Table(header, cells, best, note + halving))
  return Section('Sampler settings, swept', blocks) if blocks else None


def _setting(value: float | str) -> str:
  return value if isinstance(value, str) else f'{value:g}'


def _sweep_pictures(job: Finished) -> list[Picture]:
  """The paper's Figures 3 and 4, as far as the grid has what they show."""
  swept, pictures = set(job.config['grid']), []
  on_imagenet = job.config['references']['train']['name'] == 'imagenet2012'
  theirs = lambda name: paper.tables()[name].select() if on_imagenet else ()

  def add(name, figure, what, caption):
    pictures.append(Picture(f'{job.name}_{name}', figure, f'As {what} of the paper. {caption}'))

  if {'guidance', 'logvar'} <= swept:
    rows, caption = _slice(job, 'guidance', 'logvar')
    columns = ('guidance', 'fid_validation')
    add(
      'fid',
      figures.guidance_fid(_lines(rows, *columns), _lines(theirs('figure_3_left'), *columns)),
      'Figure 3, left,',
      caption,
    )
  elif 'guidance' in swept:
    rows, caption = _slice(job, 'guidance')
    columns = ('guidance', 'fid_train', 'inception_score')
    add(
      'fid_is',
      figures.fid_is(_points(rows, *columns), _points(theirs('figure_3_center'), *columns)),
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
    columns = ('augmentation', 'fid_train', 'top_1')
    add(
      'cas_fid',
      figures.cas_fid(_lines(rows, *columns), _lines(theirs('figure_4'), *columns)),
      'Figure 4',
      caption,
    )
  return pictures


def _slice(job: Finished, *shown: str) -> tuple[list[dict[str, Any]], str]:
  """The trials on all samples that differ in `shown` alone, with the paper's column names; a caption."""
  fixed = {name: value for name, value in job.result['best'].items() if name not in shown}
  most = max(row['num_samples'] for row in job.result['rows'])
  rows = []
  for row in job.result['rows']:
    if row['num_samples'] == most and all(row[name] == value for name, value in fixed.items()):
      names = {'inception_score': row['is'], 'augmentation': row.get('noise_augmentation')}
      if 'cas' in row:
        names |= dict(zip(('top_1', 'top_1_std'), percent(row['cas']['top_1'])))
      rows.append(row | names)
  others = ', '.join(f'{name.replace("_", " ")} {_setting(value)}' for name, value in fixed.items())
  return rows, f'{f"At {others}. " if others else ""}{_caption(job, rows[0])}'


def _points(rows: Sequence[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
  return [tuple(row[name] for name in columns) for row in rows]


def _lines(rows: Sequence[dict[str, Any]], *columns: str) -> dict[float, list[tuple[Any, ...]]]:
  """Points for each log-variance coefficient."""
  return {
    logvar: _points([row for row in rows if row['logvar'] == logvar], *columns)
    for logvar in sorted({row['logvar'] for row in rows})
  }


def quality(work: Work) -> Section | None:
  """The paper's Table 1."""
  jobs, rows = work.of_kind('evaluate'), []
  for job in jobs:
    name = _samples_name(work, job)
    for size, at in job.result['sizes'].items():
      rows.append(
        [
          f'{size}x{size}',
          name,
          *(number(at[key]) for key in ('fid_train', 'fid_validation')),
          *_precision_recall(at),
          spread((at['is'], at['is_std'])),
          f'{at["num_samples"]:,}',
        ]
      )
  for size, at in jobs[0].result['sizes'].items() if jobs else ():
    real = at['real']
    rows.append(
      [
        f'{size}x{size}',
        'real validation images',
        number(real['fid_train']),
        '',
        *_precision_recall(real),
        spread((real['is'], real['is_std'])),
        f'{real["num_samples"]:,}',
      ]
    )
    rows.append([f'{size}x{size}', 'two halves of the real ones', *_floors(at), '', '', '', ''])
  if not jobs:
    return None
  rows.sort(key=lambda row: int(row[0].split('x')[0]))
  header = [
    'Size',
    'Images',
    'Train FID',
    'Validation FID',
    'Precision',
    'Recall',
    'Inception Score',
    'Number',
  ]
  first = next(iter(jobs[0].result['sizes'].values()))
  theirs = [row for row in paper.tables()['table_1'].select() if row['model'].startswith('Ours')]
  text = (
    'The paper, ImageNet, Inception-v3 features: '
    + '; '.join(
      f'{row["image_size"]}x{row["image_size"]} train FID {row["fid_train"]}, validation FID '
      f'{row["fid_validation"]}, IS {row["inception_score"]} ± {row["inception_score_std"]}'
      for row in theirs
    )
    + '.'
  )
  return Section(
    'FID, precision and recall, Inception Score',
    [
      Table(
        header,
        rows,
        [i for i, row in enumerate(rows) if row[1] == 'fine-tuned'],
        f'Precision and recall: against the training images, k = 3. IS: mean ± standard deviation over '
        f'10 splits. {_caption(jobs[0], first)}',
      ),
      Paragraph(text),
    ],
  )


def _samples_name(work: Work, job: Finished) -> str:
  samples = job.result['samples']
  if samples not in work.jobs:
    return samples
  return 'fine-tuned' if work.is_finetuned(samples, job.name) else 'not fine-tuned'


def _floors(at: dict[str, Any]) -> list[str]:
  return [number(at['references'][split]['floor']) for split in ('train', 'validation')]


def _precision_recall(at: dict[str, Any]) -> list[str]:
  return [f'{at[key]:.3f}' for key in ('precision', 'recall')]


def _caption(job: Finished, measured: dict[str, Any]) -> str:
  warning = f'; {measured["warning"]}' if 'warning' in measured else ''
  references = (measured if 'references' in measured else job.result)['references']
  floors = ', '.join(
    f'{split} {number(reference["floor"])}' for split, reference in references.items() if 'floor' in reference
  )
  return (
    f'{measured["num_samples"]:,} samples, features of {job.result["extractor"]}{warning}. Noise floor '
    f'of FID, between two halves of the real images: {floors}.'
  )
