"""sweep: a grid of sampler settings of one stage -> FID, IS, CAS of each -> the best.

All trials sample the same keys, so that differences come from the settings.
"""

import csv
import dataclasses
import io
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

from imagenet_synth.cascade import SamplerSettings
from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_atomic
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import say
from imagenet_synth.jobs.classify import Subject, score
from imagenet_synth.jobs.drawing import Drawing
from imagenet_synth.jobs.extractor import load_extractor
from imagenet_synth.jobs.inputs import StageUse, load_cascade, load_text, open_dataset, tuned_settings
from imagenet_synth.jobs.measure import References, provenance
from imagenet_synth.jobs.plan import class_plan
from imagenet_synth.jobs.trials import Trial, Trials

SWEPT = ('guidance', 'logvar', 'num_steps', 'noise_augmentation', 'sampler', 'thresholding')


@dataclasses.dataclass(frozen=True)
class Halving:
  """Successive halving (Jamieson & Talwalkar, 2016): few samples weed out, the rest go on to more.

  per_class: samples of each class in each round but the last, ascending. keep: the share of trials that
  goes on to the next round, rounded up.
  """

  per_class: tuple[int, ...]
  keep: float = 1 / 3


@dataclasses.dataclass(frozen=True)
class Config:
  """stages: the last one is swept, the others feed it. grid: field of SamplerSettings -> values; all
  combinations are tried. per_class: samples of each class in a trial. cas: how a classifier is trained
  on a trial's samples; left out if not given. choose: what the best trial is best in. halving: the trials
  are weeded out on the way; all are measured on all samples if not given."""

  stages: tuple[StageUse, ...]
  text: str
  grid: dict[str, tuple[Any, ...]]
  extractor: str
  references: References
  per_class: int
  batch_size: int
  choose: Literal['fid_train', 'fid_validation', 'cas']
  cas: Subject | None = None
  halving: Halving | None = None
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  grid = _grid(config)
  text = load_text(config.text, folder).states
  (*below, swept), origins = load_cascade(config.stages, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  drawing = Drawing(below, text, config.seed, labels, indices, config.batch_size, folder.path)
  extractor = load_extractor(config.extractor, folder)
  references = config.references.observed(extractor, swept.stage.size, folder)
  ends = [per_class * len(text.prompts) for per_class in _rounds(config)]
  trials = Trials(folder, swept, drawing, ends, extractor, references, config.cas)
  _say_cost(trials, grid, folder.name)
  left, rows = grid, []
  for end in ends:
    ranked = sorted(trials.measured(left, end), key=lambda row: _loss(row, config.choose))
    num_kept = 0 if end == ends[-1] else math.ceil(config.halving.keep * len(ranked))
    rows += ranked[num_kept:]
    left = [_trial(row, config) for row in ranked[:num_kept]]
    for row in ranked[num_kept:]:
      trials.clean(_trial(row, config))
  drawing.clean()
  rows.sort(key=lambda row: grid.index(_trial(row, config)))
  write_atomic(folder.path / 'results.csv', _csv(rows))
  best = _trial(ranked[0], config)
  # with what earlier sweeps have found: a stage is tuned by the last one
  settings = {**tuned_settings(config.stages[-1], folder), **best}
  result = {
    'best': best,
    'settings': settings,
    'choose': config.choose,
    'rows': rows,
    'stages': origins,
    'num_drawn': sum(row['num_samples'] for row in rows),
    'num_without_halving': len(grid) * len(labels),
    **provenance(extractor, references),
  }
  if config.cas:
    # what the same classifier gets from the real training images at this size
    real = open_dataset(config.references.train, folder)
    result['cas_real'] = score(config.cas, real, swept.stage.size, folder.path / 'real', folder)
  return result


def _grid(config: Config) -> list[Trial]:
  unknown = [name for name in config.grid if name not in SWEPT]
  if unknown:
    raise InputError(f'config: grid.{unknown[0]} cannot be swept; known: {", ".join(SWEPT)}')
  if config.choose == 'cas' and config.cas is None:
    raise InputError("config: choose is 'cas', but the section cas is missing")
  settings = [
    build(SamplerSettings, dict(zip(config.grid, values)), 'grid')
    for values in itertools.product(*config.grid.values())
  ]
  return [{name: getattr(of, name) for name in config.grid} for of in settings]


def _rounds(config: Config) -> list[int]:
  """Samples of each class at the end of each round."""
  if config.halving is None:
    return [config.per_class]
  rounds = [*config.halving.per_class, config.per_class]
  if sorted(set(rounds)) != rounds or rounds[0] < 1:
    raise InputError(f'config: halving.per_class and per_class must ascend from 1 on, they are {rounds}')
  if not 0 < config.halving.keep < 1:
    raise InputError(f'config: halving.keep is {config.halving.keep}, must be between 0 and 1')
  return rounds


def _say_cost(trials: Trials, grid: Sequence[Trial], name: str) -> None:
  costs = sorted(trials.cost([trial], trials.ends[-1]) for trial in grid)
  at_most = ' at most' if len(trials.ends) > 1 else ''
  say(
    f'{name}: {len(grid)} trials of {trials.ends[-1]:,} images, {costs[0]:,} to {costs[-1]:,} '
    f'evaluations of the network each, {sum(costs):,} in all{at_most}'
  )


def _trial(row: dict[str, Any], config: Config) -> Trial:
  return {name: row[name] for name in config.grid}


def _loss(row: dict[str, Any], choose: str) -> float:
  return -row['cas']['top_1']['mean'] if choose == 'cas' else row[choose]


def _csv(rows: list[dict[str, Any]]) -> str:
  flat = [
    {key: value['top_1']['mean'] if key == 'cas' else value for key, value in row.items()} for row in rows
  ]
  file = io.StringIO()
  # only some rows of a sweep with halving carry a warning of few samples
  writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)))
  writer.writeheader()
  writer.writerows(flat)
  return file.getvalue()
