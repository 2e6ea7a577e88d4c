"""select: of a training run's checkpoints, the one whose samples have the best FID."""

import dataclasses
import shutil
from typing import Any

from imagenet_synth.cascade import SamplerSettings
from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.jobs.drawing import Drawing
from imagenet_synth.jobs.extractor import load_extractor
from imagenet_synth.jobs.inputs import (
  DatasetConfig,
  StageUse,
  find_run,
  load_cascade,
  load_stage,
  load_text,
  stage_of,
)
from imagenet_synth.jobs.measure import measure, observe, observe_real, provenance
from imagenet_synth.jobs.plan import class_plan


@dataclasses.dataclass(frozen=True)
class Config:
  """weights: the training job whose checkpoints are compared. sampler: the default settings (the
  paper: Imagen's). below: the stages that feed it. reference: real images (the paper: validation).
  per_class: samples of each class (the paper: 10K in all). prune: in the end, delete the checkpoints that
  were not selected, but the last."""

  weights: str
  text: str
  sampler: SamplerSettings
  extractor: str
  reference: DatasetConfig
  per_class: int
  batch_size: int
  below: tuple[StageUse, ...] = ()
  prune: bool = False
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  text = load_text(config.text, folder).states
  extractor = load_extractor(config.extractor, folder)
  steps = read_json(folder.input(config.weights) / 'job.json')['result']['checkpoints']
  below, _ = load_cascade(config.below, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  drawing = Drawing(below, text, config.seed, labels, indices, config.batch_size, folder.path)
  path = folder.path / 'curve.json'
  curve = read_json(path) if path.exists() else []
  use = StageUse(config.weights, config.sampler)
  size = stage_of(find_run(config.weights, folder), folder).size
  references = {'validation': observe_real(extractor, config.reference, size, folder)}
  with progress(len(labels) * len(steps), folder.name, start=len(labels) * len(curve)) as bar:
    for step in steps[len(curve) :]:
      trained, _ = load_stage(use, folder, step)
      observed = observe(
        extractor, (drawing.draw(trained, rows, bar.update) for rows in drawing.chunks(0, len(labels)))
      )
      curve.append({'step': step, **measure(observed, references)})
      write_json(path, curve)
  drawing.clean()
  best = min(curve, key=lambda row: row['fid_validation'])
  if config.prune:
    for step in set(steps[:-1]) - {best['step']}:
      shutil.rmtree(folder.input(config.weights) / 'checkpoints' / str(step), ignore_errors=True)
  return {
    'selected': {'weights': config.weights, 'step': best['step']},
    'curve': curve,
    **provenance(extractor, references),
  }
