"""The sections of the report: finished jobs in, paragraphs, tables and pictures out.

A section that has no job to tell of is None.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_synth import paper
from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs import figures
from imagenet_synth.jobs.inputs import DatasetConfig
from imagenet_synth.jobs.measure import real_images
from imagenet_synth.jobs.page import Paragraph, Picture, Section, Table
from imagenet_synth.jobs.plan import class_plan

_NUM_SHOWN_CLASSES, _NUM_SHOWN_EACH = 10, 6


@dataclasses.dataclass(frozen=True)
class Finished:
  """A finished job as its folder holds it."""
  name: str
  kind: str
  path: pathlib.Path
  config: dict[str, Any]
  result: dict[str, Any]
  origin: dict[str, Any]
  seconds: float


@dataclasses.dataclass(frozen=True)
class Work:
  """All jobs that are reported, in order, and the report's own folder."""
  jobs: Mapping[str, Finished]
  folder: Folder

  def of_kind(self, *kinds: str) -> list[Finished]:
    return [job for job in self.jobs.values() if job.kind in kinds]

  def job(self, name: str, user: str) -> Finished:
    if name not in self.jobs:
      raise InputError(f'config: {self.folder.name}.jobs lacks {name}, which {user} was made from')
    return self.jobs[name]

  def is_finetuned(self, samples: str, user: str) -> bool:
    """Whether the base of a generate job is one that was fine-tuned."""
    run = self.job(samples, user).result['stages'][0]['run']
    return self.job(run, samples).kind == 'finetune'


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """A classifier trained on one mixture, over seeds. `summary` is that of jobs/classify.py."""
  model: str
  model_id: str
  num_real: int
  num_synthetic: int
  finetuned: bool
  summary: dict[str, Any]

  @property
  def trained_on(self) -> str:
    parts = [f'{self.num_real:,} real'] if self.num_real else []
    if self.num_synthetic:
      parts.append(f'{self.num_synthetic:,} synthetic' + ('' if self.finetuned else ', not fine-tuned'))
    return ' + '.join(parts)

  @property
  def top_1(self) -> figures.MeanStd:
    """In percent."""
    return _percent(self.summary['top_1'])


def accuracies(work: Work) -> list[Accuracy]:
  rows = []
  for job in work.of_kind('classify'):
    model_id = json_hash([job.config[key] for key in ('model', 'recipe', 'size')])
    for mixture in job.result['mixtures'].values():
      source = mixture['synthetic']
      rows.append(Accuracy(
          job.result['model'], model_id, mixture['num_real'], mixture['num_synthetic'],
          source is not None and work.is_finetuned(source, job.name), mixture))
  return rows


@dataclasses.dataclass(frozen=True)
class Trio:
  """One classifier trained on real, on synthetic and on both, at the smallest synthetic count."""
  real: Accuracy
  synthetic: Accuracy
  both: Accuracy | None
  not_finetuned: Accuracy | None


def _trios(rows: Sequence[Accuracy]) -> list[Trio]:
  trios = []
  for model_id in dict.fromkeys(row.model_id for row in rows):
    mine = sorted((row for row in rows if row.model_id == model_id), key=lambda r: r.num_synthetic)
    first = lambda test: next((row for row in mine if test(row)), None)
    real = first(lambda r: r.num_real and not r.num_synthetic)
    synthetic = first(lambda r: not r.num_real and r.finetuned)
    if real and synthetic:
      trios.append(Trio(real, synthetic, first(lambda r: r.num_real and r.finetuned),
                        first(lambda r: not r.num_real and not r.finetuned)))
  return trios


def in_short(work: Work) -> Section | None:
  blocks = []
  for trio in _trios(accuracies(work)):
    real, synthetic = trio.real.top_1, trio.synthetic.top_1
    num = trio.real.summary['top_1']['num']
    text = (f'{trio.real.model}, tested on real images it has not seen: {_spread(real)} % when trained '
            f'on {trio.real.trained_on} images, {_spread(synthetic)} % when trained on '
            f'{trio.synthetic.trained_on} ones (the Classification Accuracy Score; '
            f'{100 * synthetic[0] / real[0]:.1f} % of the former)')
    if trio.both:
      text += f', {_spread(trio.both.top_1)} % on {trio.both.trained_on}'
    if trio.not_finetuned:
      text += (f'. The cascade that was not fine-tuned scores {_spread(trio.not_finetuned.top_1)} %')
    blocks.append(Paragraph(f'{text}. Mean ± standard deviation over {num} seeds.'))
  for encoder in dict.fromkeys(job.result['encoder'] for job in work.of_kind('embed')):
    blocks.append(Paragraph(f'Text encoder: {encoder}.'))
  for extractor in _extractors(work):
    note = '' if extractor.startswith('Inception-v3') else (
        ', a classifier trained on real images, not of Inception-v3: they can be compared within '
        'this report only')
    blocks.append(Paragraph(f'FID and Inception Score use the features of {extractor}{note}.'))
  return Section('In short', blocks) if blocks else None


def _extractors(work: Work) -> list[str]:
  jobs = work.of_kind('select', 'sweep', 'evaluate')
  return list(dict.fromkeys(job.result['extractor'] for job in jobs))


def samples(work: Work) -> Section | None:
  """The paper's Figure 2: rows of a class, real images beside generated ones."""
  jobs = sorted(work.of_kind('generate'), key=lambda job: not work.is_finetuned(job.name, job.name))
  if not jobs:
    return None
  dataset = build(DatasetConfig, jobs[0].config['dataset'], f'{jobs[0].name}.dataset')
  names, size = _class_names(jobs[0]), jobs[0].result['sizes'][-1]
  shown = np.linspace(0, len(names) - 1, min(_NUM_SHOWN_CLASSES, len(names))).astype(int)
  pictures, labels = real_images(dataset, size, work.folder)
  groups = [('real', np.stack([pictures[labels == c][:_NUM_SHOWN_EACH] for c in shown]))]
  for job in jobs:
    made, _ = class_plan(job.result['class_counts'])
    source = ShardSource(sorted((job.path / str(size)).glob('*.tfrecord')))
    rows = [[source[i]['image'] for i in np.flatnonzero(made == c)[:_NUM_SHOWN_EACH]] for c in shown]
    name = 'fine-tuned' if work.is_finetuned(job.name, job.name) else 'not fine-tuned'
    groups.append((name, np.array(rows)))
  gap = np.full_like(groups[0][1][:, :1], 255)
  tiles, heads = [], []
  for name, group in groups:
    tiles += [group, gap]
    heads += [''] * (_NUM_SHOWN_EACH // 2) + [name] + [''] * (_NUM_SHOWN_EACH - _NUM_SHOWN_EACH // 2)
  grid = figures.image_grid(np.concatenate(tiles[:-1], axis=1), [names[c] for c in shown], heads[:-1])
  seeds = ', '.join(f'{job.name}: seed {job.config.get("seed", 0)}' for job in jobs)
  return Section('Samples', [Picture(
      'samples', grid, f'The first {_NUM_SHOWN_EACH} of each class at {size}x{size}, not picked ({seeds}). '
      'A row a class: real training images, then generated ones.')])


def _class_names(job: Finished) -> list[str]:
  return json.loads((job.path / 'manifest.json').read_text())['class_names']


def training(work: Work) -> Section | None:
  jobs = work.of_kind('pretrain', 'finetune')
  rows = [[job.name, job.config.get('init', 'random weights'), job.config['dataset']['name'],
           job.config['optimizer']['name'], f'{job.config["num_steps"]:,} of {job.config["batch_size"]}',
           f'{job.result["num_params"]:,}', f'{_loss(job):.4f}', f'{job.seconds:.0f}'] for job in jobs]
  header = ['Stage', 'Starts from', 'Data', 'Optimizer', 'Steps', 'Parameters', 'Loss', 'Seconds']
  note = ('Loss: mean over the last quarter of the steps. Text encoder and stages without a fine-tuning '
          'job stay frozen.')
  return Section('Training', [Table(header, rows, note=note)]) if jobs else None


def _loss(job: Finished) -> float:
  lines = [json.loads(line) for line in (job.path / 'metrics.jsonl').read_text().splitlines()]
  return float(np.mean([line['loss'] for line in lines
                        if line['step'] > 0.75 * job.config['num_steps']]))


def selection(work: Work) -> Section | None:
  blocks = []
  for job in work.of_kind('select'):
    curve, chosen = job.result['curve'], job.result['selected']
    rows = [[str(point['step']), _number(point['fid_validation']), _number(point['is'])]
            for point in curve]
    strong = [i for i, point in enumerate(curve) if point['step'] == chosen['step']]
    blocks.append(Table(['Step', 'Validation FID', 'Inception Score'], rows, strong,
                        f'{job.name}: checkpoints of {chosen["weights"]}. {_caption(job, curve[0])}'))
  return Section('Checkpoints, selected by FID', blocks) if blocks else None


def sweeps(work: Work) -> Section | None:
  blocks = []
  for job in work.of_kind('sweep'):
    grid, rows = list(job.config['grid']), job.result['rows']
    swept = job.result['stages'][-1]['run']
    best = [i for i, row in enumerate(rows)
            if all(row[name] == value for name, value in job.result['best'].items())]
    blocks += _sweep_pictures(job)
    has_cas = 'cas' in rows[0]
    cells = [[_setting(row[name]) for name in grid]
             + [_number(row[name]) for name in ('fid_train', 'fid_validation', 'is')]
             + ([_spread(_percent(row['cas']['top_1']))] if has_cas else [])
             + [f'{row["num_samples"]:,}'] for row in rows]
    header = [name.replace('_', ' ') for name in grid] + [
        'Train FID', 'Validation FID', 'Inception Score'] + (['CAS (%)'] if has_cas else []) + ['Samples']
    saved = job.result['num_without_halving'] - job.result['num_drawn']
    halving = (f' Successive halving: {job.result["num_drawn"]:,} images drawn instead of '
               f'{job.result["num_without_halving"]:,}; figures of few samples do not compare with '
               'those of many.') if saved else ''
    blocks.append(Table(header, cells, best, f'{job.name}, sampler of {swept}: best in {job.result["choose"]}. '
                                             f'{_caption(job, rows[0])}{halving}'))
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
    add('fid', figures.guidance_fid(_lines(rows, *columns), _lines(theirs('figure_3_left'), *columns)),
        'Figure 3, left,', caption)
  elif 'guidance' in swept:
    rows, caption = _slice(job, 'guidance')
    columns = ('guidance', 'fid_train', 'inception_score')
    add('fid_is', figures.fid_is(_points(rows, *columns), _points(theirs('figure_3_center'), *columns)),
        'Figure 3, center,', caption)
    if 'cas' in rows[0]:
      real = _percent(job.result['cas_real']['top_1'])
      add('cas', figures.guidance_cas(
          _points(rows, 'guidance', 'top_1', 'top_1_std'), real=real,
          paper=_points(theirs('figure_3_right'), 'guidance', 'top_1')), 'Figure 3, right,', caption)
  if {'noise_augmentation', 'logvar'} <= swept and 'cas' in job.result['rows'][0]:
    rows, caption = _slice(job, 'noise_augmentation', 'logvar')
    columns = ('augmentation', 'fid_train', 'top_1')
    add('cas_fid', figures.cas_fid(_lines(rows, *columns), _lines(theirs('figure_4'), *columns)),
        'Figure 4', caption)
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
        names |= dict(zip(('top_1', 'top_1_std'), _percent(row['cas']['top_1'])))
      rows.append(row | names)
  others = ', '.join(f'{name.replace("_", " ")} {_setting(value)}' for name, value in fixed.items())
  return rows, f'{f"At {others}. " if others else ""}{_caption(job, rows[0])}'


def _points(rows: Sequence[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
  return [tuple(row[name] for name in columns) for row in rows]


def _lines(rows: Sequence[dict[str, Any]], *columns: str) -> dict[float, list[tuple[Any, ...]]]:
  """Points for each log-variance coefficient."""
  return {logvar: _points([row for row in rows if row['logvar'] == logvar], *columns)
          for logvar in sorted({row['logvar'] for row in rows})}


def quality(work: Work) -> Section | None:
  """The paper's Table 1."""
  jobs, rows = work.of_kind('evaluate'), []
  for job in jobs:
    name = _samples_name(work, job)
    for size, at in job.result['sizes'].items():
      rows.append([f'{size}x{size}', name, *(_number(at[key]) for key in ('fid_train', 'fid_validation')),
                   *_precision_recall(at), _spread((at['is'], at['is_std'])),
                   f'{at["num_samples"]:,}'])
  for size, at in jobs[0].result['sizes'].items() if jobs else ():
    real = at['real']
    rows.append([f'{size}x{size}', 'real validation images', _number(real['fid_train']), '',
                 *_precision_recall(real), _spread((real['is'], real['is_std'])), f'{real["num_samples"]:,}'])
    rows.append([f'{size}x{size}', 'two halves of the real ones', *_floors(at), '', '', '', ''])
  if not jobs:
    return None
  rows.sort(key=lambda row: int(row[0].split('x')[0]))
  header = ['Size', 'Images', 'Train FID', 'Validation FID', 'Precision', 'Recall', 'Inception Score',
            'Number']
  first = next(iter(jobs[0].result['sizes'].values()))
  theirs = [row for row in paper.tables()['table_1'].select() if row['model'].startswith('Ours')]
  text = 'The paper, ImageNet, Inception-v3 features: ' + '; '.join(
      f'{row["image_size"]}x{row["image_size"]} train FID {row["fid_train"]}, validation FID '
      f'{row["fid_validation"]}, IS {row["inception_score"]} ± {row["inception_score_std"]}'
      for row in theirs) + '.'
  return Section('FID, precision and recall, Inception Score', [
      Table(header, rows, [i for i, row in enumerate(rows) if row[1] == 'fine-tuned'],
            f'Precision and recall: against the training images, k = 3. IS: mean ± standard deviation over '
            f'10 splits. {_caption(jobs[0], first)}'),
      Paragraph(text)])


def _samples_name(work: Work, job: Finished) -> str:
  samples = job.result['samples']
  if samples not in work.jobs:
    return samples
  return 'fine-tuned' if work.is_finetuned(samples, job.name) else 'not fine-tuned'


def _floors(at: dict[str, Any]) -> list[str]:
  return [_number(at['references'][split]['floor']) for split in ('train', 'validation')]


def _precision_recall(at: dict[str, Any]) -> list[str]:
  return [f'{at[key]:.3f}' for key in ('precision', 'recall')]


def classifiers(work: Work) -> Section | None:
  """The paper's Tables 2 and 3 and the bottom of its Figure 1."""
  rows = accuracies(work)
  trios = [trio for trio in _trios(rows) if trio.both]
  if not rows:
    return None
  blocks = []
  if trios:
    blocks.append(Picture(
        'real_vs_both', figures.real_vs_both([
            (trio.real.model, trio.real.top_1, trio.synthetic.top_1, trio.both.top_1)
            for trio in trios]),
        'As Figure 1, bottom, of the paper: an arrow from real to real + synthetic.'))
  real = {row.model_id: row.top_1[0] for row in rows if row.num_real and not row.num_synthetic}
  gain = lambda row: (f'{row.top_1[0] - real[row.model_id]:+.2f}'
                      if row.model_id in real and row.num_synthetic else '')
  cells = [[row.model, row.trained_on, _spread(row.top_1), _spread(_percent(row.summary['top_5'])),
            gain(row), _spread(_percent(row.summary['calibration_error'])),
            str(row.summary['top_1']['num'])]
           for row in sorted(rows, key=lambda row: (row.model, bool(row.num_synthetic),
                                                    row.num_real, row.num_synthetic))]
  header = ['Model', 'Trained on', 'Top-1 (%)', 'Top-5 (%)', 'To real', 'ECE (%)', 'Seeds']
  num_test = work.of_kind('classify')[0].result['num_test']
  blocks.append(Table(
      header, cells, note=f'Tested on {num_test:,} real images; mean ± standard deviation over '
      'seeds. Trained on synthetic images alone, top-1 is the CAS. ECE: expected calibration error. '
      'All runs of a model take the same number of steps.'))
  theirs = [row for name in ('ResNet-50', 'ViT-S/16')
            for row in paper.tables()['table_3'].select(model=name)]
  blocks.append(Table(
      ['The paper, ImageNet', 'Real', 'Generated', 'Real + generated'],
      [[row['model'], *(f'{row[key]:.2f}' for key in ('real', 'generated', 'real_and_generated'))]
       for row in theirs], note='Table 3 of the paper: top-1 (%), 1.2M generated images.'))
  return Section('Classifiers on real, synthetic and both', blocks)


def scaling(work: Work) -> Section | None:
  """The paper's Figure 6."""
  rows, blocks = accuracies(work), []
  for model_id in dict.fromkeys(row.model_id for row in rows):
    mine = [row for row in rows if row.model_id == model_id]
    real = next((row for row in mine if row.num_real and not row.num_synthetic), None)
    points = [(row.num_synthetic, *row.top_1) for row in mine if row.num_real and row.finetuned]
    if real and len(points) > 1:
      blocks.append(Picture(
          f'scaling_{real.model.lower()}', figures.scaling(points, real.top_1),
          f'As Figure 6 of the paper: {real.model}, {real.trained_on} images and synthetic ones.'))
  if not blocks:
    return None
  figure_6 = paper.tables()['figure_6'].select()
  printed = ', '.join(f'+{row["printed_gain"]} at {row["generated_millions"]}M'
                      for row in figure_6 if row['printed_gain'] is not None)
  return Section('Accuracy as synthetic data grows', blocks + [Paragraph(
      f'The paper, ResNet-50 on ImageNet at 64x64, 1.2M real images: {printed} generated images.')])


def per_class(work: Work) -> Section | None:
  """The paper's Figure 5."""
  trios = _trios(accuracies(work))
  if not trios:
    return None
  names = work.of_kind('classify')[0].result['class_names']
  blocks = []
  for trio in trios:
    real, synthetic = (100 * np.array(row.summary['per_class']) for row in (trio.real, trio.synthetic))
    blocks.append(Picture(
        f'per_class_{trio.real.model.lower()}', figures.per_class(names, real, synthetic),
        f'As Figure 5 of the paper: {trio.real.model} on {trio.real.trained_on} and on '
        f'{trio.synthetic.trained_on} images, means over seeds.'))
  return Section('Class by class', blocks)


def origins(work: Work) -> Section:
  rows = [[job.name, job.kind, f'{job.seconds:.0f}', job.origin['config_hash'],
           job.origin['revision'], ', '.join(job.origin['inputs'])] for job in work.jobs.values()]
  total = sum(job.seconds for job in work.jobs.values())
  return Section('Where it comes from', [Table(
      ['Job', 'Kind', 'Seconds', 'Config hash', 'Code', 'Made from'], rows,
      note=f'{total / 60:.1f} minutes in all, the report left out.')])


SECTIONS: tuple[Callable[[Work], Section | None], ...] = (
    in_short, samples, classifiers, scaling, per_class, quality, sweeps, selection, training, origins)


def _caption(job: Finished, measured: dict[str, Any]) -> str:
  warning = f'; {measured["warning"]}' if 'warning' in measured else ''
  references = (measured if 'references' in measured else job.result)['references']
  floors = ', '.join(f'{split} {_number(reference["floor"])}' for split, reference in references.items()
                     if 'floor' in reference)
  return (f'{measured["num_samples"]:,} samples, features of {job.result["extractor"]}{warning}. Noise floor '
          f'of FID, between two halves of the real images: {floors}.')


def _percent(value: dict[str, Any]) -> figures.MeanStd:
  return 100 * value['mean'], None if value['std'] is None else 100 * value['std']


def _spread(value: figures.MeanStd) -> str:
  mean, std = value
  return f'{mean:.2f}' if std is None else f'{mean:.2f} ± {std:.2f}'


def _number(value: float) -> str:
  return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
