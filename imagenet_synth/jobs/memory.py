"""What a training job will keep on each device, known before anything is allocated."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from imagenet_synth.cascade import DiffusionObjective, Stage
from imagenet_synth.core.config import build
from imagenet_synth.core.mesh import make_mesh
from imagenet_synth.jobs.embed import Config as EmbedConfig
from imagenet_synth.jobs.inputs import StageConfig, make_stage
from imagenet_synth.jobs.train_stage import Training
from imagenet_synth.models.t5 import PUBLIC_CONFIGS
from imagenet_synth.train.state import Trainer


class NotKnown(Exception):
  """A size depends on what is said nowhere yet."""


class Sections:
  """The configurations of jobs by name: of a config file, or else of folders in the workdir."""

  def __init__(self, sections: Mapping[str, Mapping[str, Any]], workdir: pathlib.Path):
    self._sections, self._workdir = sections, workdir

  def __getitem__(self, name: str) -> Mapping[str, Any]:
    path = self._workdir / name / 'config.json'
    if name not in self._sections and path.exists():
      return json.loads(path.read_text())
    if name not in self._sections:
      raise NotKnown(f'there is no job {name}, neither in this config nor in {self._workdir}')
    return self._sections[name]


def describe(config: Training, name: str, sections: Sections) -> str:
  """Parameters of the stage, and the training state's share of a device, as a line."""
  mesh = make_mesh(config.fsdp, config.tensor)
  stage = _stage(name, sections)
  objective = DiffusionObjective(stage, config.text_dropout, config.crop)
  trainer = Trainer(objective, config.optimizer, config.num_steps, config.ema_decay, mesh, config.accumulate)
  state, shardings = trainer.abstract, trainer.shardings
  num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  # the gradients are laid out as the parameters
  kept = _bytes(state, shardings) + _bytes(state.params, shardings.params)
  axes = ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  size = f'{kept / 2**30:.1f} GiB' if kept >= 2**30 else f'{kept / 2**20:.1f} MiB'
  return (
    f'{num_params:,} parameters; weights, average, optimizer and gradients take {size} on each '
    f'of {mesh.size} devices ({axes})'
  )


def _bytes(tree: Any, shardings: Any) -> int:
  """Of the part of the tree that one device holds."""
  parts = jax.tree.map(
    lambda leaf, sharding: int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize,
    tree,
    shardings,
  )
  return sum(jax.tree.leaves(parts))


def _stage(name: str, sections: Sections) -> Stage:
  """The stage of a training job, or of the job that it, or a select job, takes its weights from."""
  section = sections[name]
  if 'stage' in section:
    where = f'{name}.stage'
    return make_stage(
      build(StageConfig, section['stage'], where), _text_shape(section['text'], sections), where
    )
  return _stage(section['weights'] if section['job'] == 'select' else section['init'], sections)


def _text_shape(name: str, sections: Sections) -> tuple[int, int]:
  section = {key: value for key, value in sections[name].items() if key != 'job'}
  config = build(EmbedConfig, section, name)
  encoder = config.encoder.random or PUBLIC_CONFIGS.get(config.encoder.size)
  if encoder is None:
    raise NotKnown(f'{name}.encoder.size is not given (one of {", ".join(PUBLIC_CONFIGS)})')
  return config.max_length, encoder.width
