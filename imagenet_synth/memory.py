"""The memory that a training job will need on each device, known before anything is allocated."""

from typing import Any

import jax
import numpy as np

from imagenet_synth.cascade import DiffusionObjective
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.train.loop import disk_bytes
from imagenet_synth.train.stage import Training
from imagenet_synth.train.state import Trainer


def describe(config: Training, jobs: KnownJobs) -> str:
  """Returns a line with the number of parameters of the stage, and what training keeps on each device."""
  shape = config.text.shape(jobs)
  if shape is None:
    return f'size not known: jobs.{config.text}.encoder.size is not given'
  mesh = make_mesh(config.fsdp, config.tensor)
  stage = config.trained_stage(jobs)
  objective = DiffusionObjective(stage, shape[1], config.text_dropout, config.crop)
  trainer = Trainer(objective, config.optimizer, config.num_steps, config.ema_decay, mesh, config.accumulate)
  state, shardings = trainer.abstract, trainer.shardings
  num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  # the gradients are laid out as the parameters
  kept = _bytes(state, shardings) + _bytes(state.params, shardings.params)
  axes = ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  disk = disk_bytes(state, config.num_steps, config.checkpoint_every, config.snapshot_dtype)
  return (
    f'{num_params:,} parameters; weights, average, optimizer and gradients take {_said(kept)} on each '
    f'of {mesh.size} devices ({axes}); checkpoints take {_said(disk.peak)} of disk, '
    f'{_said(disk.kept)} in the end'
  )


def _said(size: int) -> str:
  return f'{size / 2**30:.1f} GiB' if size >= 2**30 else f'{size / 2**20:.1f} MiB'


def _bytes(tree: Any, shardings: Any) -> int:
  """Returns the bytes of a tree of arrays, laid out by a tree of shardings, that one device holds."""
  parts = jax.tree.map(
    lambda leaf, sharding: int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize,
    tree,
    shardings,
  )
  return sum(jax.tree.leaves(parts))
