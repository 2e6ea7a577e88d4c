"""sweep: a grid of sampler settings of one stage -> FID, IS, CAS of each -> the best.

All trials sample the same keys, so that differences come from the settings.
"""

import csv
import dataclasses
import io
import itertools
from typing import Any, Literal

import numpy as np

from imagenet_synth import cascade
from imagenet_synth.core import images
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, write_atomic, write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.jobs.classify import Subject, score
from imagenet_synth.jobs.inputs import StageUse, load_cascade, load_text
from imagenet_synth.jobs.measure import References, load_extractor, measure, observe, real_images
from imagenet_synth.jobs.plan import class_plan

SWEPT = ('guidance', 'logvar', 'num_steps', 'noise_augmentation')


@dataclasses.dataclass(frozen=True)
class Config:
  """stages: the last one is swept, the others feed it. grid: field of SamplerSettings -> values; all
  combinations are tried. per_class: samples of each class in a trial. cas: how a classifier is trained
  on a trial's samples; left out if not given. choose: what the best trial is best in."""
  stages: tuple[StageUse, ...]
  text: str
  grid: dict[str, tuple[float, ...]]
  extractor: str
  references: References
  per_class: int
  batch_size: int
  choose: Literal['fid_train', 'fid_validation', 'cas']
  cas: Subject | None = None
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  text = load_text(config.text, folder).states
  stages, origins = load_cascade(config.stages, folder)
  *below, swept = stages
  extractor = load_extractor(config.extractor, folder)
  references = config.references.observed(extractor, swept.stage.size, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  trials = _trials(config)
  low_res = None
  with progress(len(labels) * len(trials), folder.name) as bar:
    for trial in trials:
      path = folder.path / 'trials' / _name(trial)
      if (path / 'metrics.json').exists():
        bar.update(len(labels))
        continue
      path.mkdir(parents=True, exist_ok=True)
      if below and low_res is None:
        low_res = cascade.sample(below, text, config.seed, labels, indices, config.batch_size)[-1]
      stage = swept._replace(settings=dataclasses.replace(swept.settings, **trial))
      drawn, = cascade.sample([stage], text, config.seed, labels, indices, config.batch_size,
                              low_res=low_res, first_stage=len(below), on_batch=bar.update)
      pictures = np.asarray(images.to_uint8(drawn))
      metrics = {**trial, **measure(observe(extractor, [pictures]), references)}
      if config.cas:
        metrics['cas'] = score(config.cas, pictures, labels, path, folder)
      write_json(path / 'metrics.json', metrics)
  rows = [read_json(folder.path / 'trials' / _name(trial) / 'metrics.json') for trial in trials]
  write_atomic(folder.path / 'results.csv', _csv(rows))
  best = min(rows, key=lambda row: _loss(row, config.choose))
  result = {'best': {name: best[name] for name in config.grid}, 'choose': config.choose,
            'rows': rows, 'stages': origins, 'extractor': extractor.described}
  if config.cas:
    # what the same classifier gets from the real training images at this size
    real = real_images(config.references.train, swept.stage.size, folder)
    result['cas_real'] = score(config.cas, *real, folder.path / 'real', folder)
  return result


def _trials(config: Config) -> list[dict[str, float]]:
  unknown = [name for name in config.grid if name not in SWEPT]
  if unknown:
    raise InputError(f'config: grid.{unknown[0]} cannot be swept; known: {", ".join(SWEPT)}')
  if config.choose == 'cas' and config.cas is None:
    raise InputError("config: choose is 'cas', but the section cas is missing")
  kinds = {name: int if name == 'num_steps' else float for name in SWEPT}
  return [{name: kinds[name](value) for name, value in zip(config.grid, values)}
          for values in itertools.product(*config.grid.values())]


def _name(trial: dict[str, float]) -> str:
  return '-'.join(f'{name}_{value:g}' for name, value in trial.items())


def _loss(row: dict[str, Any], choose: str) -> float:
  return -row['cas']['top_1']['mean'] if choose == 'cas' else row[choose]


def _csv(rows: list[dict[str, Any]]) -> str:
  flat = [{key: value['top_1']['mean'] if key == 'cas' else value for key, value in row.items()}
          for row in rows]
  file = io.StringIO()
  writer = csv.DictWriter(file, list(flat[0]))
  writer.writeheader()
  writer.writerows(flat)
  return file.getvalue()
