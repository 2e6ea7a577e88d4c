"""select: of a training run's checkpoints, the one whose samples have the best FID."""

import dataclasses
from typing import Any

import numpy as np

from imagenet_synth import cascade
from imagenet_synth.cascade import SamplerSettings
from imagenet_synth.core import images
from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.jobs.inputs import (DatasetConfig, StageUse, load_cascade, load_stage,
                                        load_text)
from imagenet_synth.jobs.measure import load_extractor, measure, observe, observe_real
from imagenet_synth.jobs.plan import class_plan


@dataclasses.dataclass(frozen=True)
class Config:
  """weights: the training job whose checkpoints are compared. sampler: the default settings (the
  paper: Imagen's). below: the stages that feed it. reference: real images (the paper: validation).
  per_class: samples of each class (the paper: 10K in all)."""
  weights: str
  text: str
  sampler: SamplerSettings
  extractor: str
  reference: DatasetConfig
  per_class: int
  batch_size: int
  below: tuple[StageUse, ...] = ()
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  text = load_text(config.text, folder).states
  extractor = load_extractor(config.extractor, folder)
  labels, indices = class_plan([config.per_class] * len(text.prompts))
  steps = read_json(folder.input(config.weights) / 'job.json')['result']['checkpoints']
  path = folder.path / 'curve.json'
  curve = read_json(path) if path.exists() else []
  below, _ = load_cascade(config.below, folder)
  use, position = StageUse(config.weights, config.sampler), len(below)
  with progress(len(labels) * len(steps), folder.name, start=len(labels) * len(curve)) as bar:
    low_res = None
    for step in steps[len(curve):]:
      if below and low_res is None:
        low_res = cascade.sample(below, text, config.seed, labels, indices, config.batch_size)[-1]
      trained, _ = load_stage(use, folder, step)
      drawn, = cascade.sample([trained], text, config.seed, labels, indices, config.batch_size,
                              low_res=low_res, first_stage=position, on_batch=bar.update)
      size = trained.stage.size
      reference = observe_real(extractor, config.reference, size, folder)
      pictures = np.asarray(images.to_uint8(drawn))
      curve.append({'step': step, **measure(observe(extractor, [pictures]), {'validation': reference})})
      write_json(path, curve)
  best = min(curve, key=lambda row: row['fid_validation'])
  return {'selected': {'weights': config.weights, 'step': best['step']}, 'curve': curve,
          'extractor': extractor.described}
