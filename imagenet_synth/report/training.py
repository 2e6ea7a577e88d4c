"""The report's sections on training: stages, their checkpoints, and the losses of all that was trained.

Instead of a section, None is returned where no job was run that it could be about.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.report import figures
from imagenet_synth.report.colors import BOTH, MUTED, REAL, SYNTHETIC
from imagenet_synth.report.fid import close_to_best, how_measured, inception_score, undecided_note
from imagenet_synth.report.page import Block, Picture, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, duration, number, percent, spread

# points of a curve, at most: it is an inch or two wide
_NUM_POINTS = 100


def training(results: Results) -> Section | None:
  """Returns a row for each stage that was trained, and the losses of stages and classifiers."""
  jobs = results.of_kind('pretrain', 'finetune')
  blocks: list[Block] = [_stages(jobs)] if jobs else []
  stages = [(job.name, _curves_of_stage(job)) for job in jobs]
  classifiers = [(job.name, _curves_of_classifiers(job)) for job in results.of_kind('classify')]
  blocks += _losses('stages', 'Loss of the stages on training images.', stages)
  blocks += _losses(
    'classifiers',
    'Loss of the classifiers on training images, a curve for each training set, means over seeds.',
    classifiers,
  )
  return Section('Training', blocks) if blocks else None


def _stages(jobs: Sequence[FinishedJob]) -> Table:
  rows = [
    [
      job.name,
      job.config.get('init', 'random weights'),
      _trained_on(job),
      job.config['optimizer']['name'],
      f'{job.config["num_steps"]:,}',
      f'{job.config["batch_size"]:,}',
      f'{job.result["num_params"]:,}',
      f'{_final_loss(job):.4f}',
      duration(job.seconds),
    ]
    for job in jobs
  ]
  header = ['Stage', 'Starts from', 'Data', 'Optimizer', 'Steps', 'Batch size', 'Parameters', 'Loss', 'Time']
  note = (
    'Loss: mean over the last quarter of the steps. Text encoder and stages without a fine-tuning '
    'job stay frozen.'
  )
  return Table('Stages that were trained', header, rows, note=note, jobs=[job.name for job in jobs])


def _trained_on(job: FinishedJob) -> str:
  """Returns the data sets of a training job, with the shares of those that are blended in."""
  others = [
    f'{part["dataset"]["name"]} ({100 * part["share"]:.3g} %)' for part in job.config.get('blend', ())
  ]
  return ', '.join([job.config['dataset']['name'], *others])


def _final_loss(job: FinishedJob) -> float:
  """Returns the mean loss over the last quarter of the steps."""
  steps, losses = _read_losses(job.path)
  return float(np.mean(losses[steps > 0.75 * job.config['num_steps']]))


def _read_losses(folder: epath.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns the steps of a run's metrics, int [N], and the losses, float [N]; none where there is no file."""
  path = folder / 'metrics.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
  lines = [line for line in lines if 'loss' in line]
  return np.array([line['step'] for line in lines], int), np.array([line['loss'] for line in lines], float)


def _curves_of_stage(job: FinishedJob) -> list[figures.Curve]:
  steps, losses = _read_losses(job.path)
  return [_thinned('', steps, losses, REAL.light)] if len(steps) else []


def _curves_of_classifiers(job: FinishedJob) -> list[figures.Curve]:
  """Returns a curve for each mixture of a classify job; those of one kind have one name and colour."""
  curves = []
  for name, of in job.result['mixtures'].items():
    runs = [_read_losses(job.path / run['path']) for run in job.result['runs'] if run['mixture'] == name]
    # the same in all runs, unless one was made by an earlier version of the program
    steps = runs[0][0]
    if len(steps) and all(np.array_equal(steps, others) for others, _ in runs):
      kind, color = _kind(of)
      curves.append(_thinned(kind, steps, np.mean([losses for _, losses in runs], axis=0), color))
  return curves


def _kind(mixture: Mapping[str, Any]) -> tuple[str, str]:
  """Returns what a mixture is, in words, and its colour."""
  if mixture.get('num_stand_in'):
    return 'control', MUTED.light
  if not mixture['num_synthetic']:
    return 'real', REAL.light
  return ('real + synthetic', BOTH.light) if mixture['num_real'] else ('synthetic', SYNTHETIC.light)


def _thinned(name: str, steps: np.ndarray, losses: np.ndarray, color: str) -> figures.Curve:
  """Returns a curve of at most so many points as can be seen: means over steps beside each other."""
  parts = np.array_split(np.arange(len(steps)), min(_NUM_POINTS, len(steps)))
  return figures.Curve(
    name, [int(steps[part[-1]]) for part in parts], [float(np.mean(losses[part])) for part in parts], color
  )


def _losses(what: str, caption: str, panels: Sequence[tuple[str, Sequence[figures.Curve]]]) -> list[Picture]:
  """Returns a picture of the panels that have curves, if there are any."""
  drawn = [(name, curves) for name, curves in panels if curves]
  if not drawn:
    return []
  said = '; '.join(
    f'{name}: '
    + ', '.join(
      f'{curve.name} {number(curve.losses[0])} to {number(curve.losses[-1])}'.lstrip() for curve in curves
    )
    for name, curves in drawn
  )
  alt = f'Curves of the loss by step, which go from their first value to their last: {said}.'
  return [Picture(f'loss_of_{what}', figures.losses(drawn), caption, alt, [name for name, _ in drawn])]


def selection(results: Results) -> Section | None:
  """Returns a table for each select job: its checkpoints, their FID, and their CAS where it was measured."""
  blocks = []
  for job in results.of_kind('select'):
    curve, choose = job.result['curve'], job.result['choose']
    # the run whose checkpoints are compared comes last, behind what other jobs have handed on
    run, has_cas = curve[-1]['run'], 'cas' in curve[0]
    rows = [
      [_checkpoint(point, run), number(point['fid_validation']), inception_score(point)]
      + ([spread(percent(point['cas']['top_1']))] if has_cas else [])
      for point in curve
    ]
    close = close_to_best(curve, 'cas' if choose == 'cas' else 'fid_validation')
    header = ['Step', 'Validation FID', 'Inception Score'] + (['CAS (%)'] if has_cas else [])
    note = (
      f'Step {_checkpoint(job.result, run)} is used on. {undecided_note(close, choose)}'
      f'{how_measured(job, curve[0])}'
    )
    caption = f'{job.name}: checkpoints of {run}, chosen by {choose.upper()}'
    blocks.append(Table(caption, header, rows, close, note, [job.name]))
  return Section('Checkpoints, selected', blocks) if blocks else None


def _checkpoint(of: Mapping[str, Any], run: str) -> str:
  """Returns a checkpoint's step, with the run that it is of if that is another one than `run`."""
  return f'{of["step"]:,}' if of['run'] == run else f'{of["step"]:,} of {of["run"]}'
