"""A step whose weights are cut along `fsdp`: what devices send each other, and what each holds meanwhile."""

import collections
import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.devices import make_mesh
from imagenet_synth.models.layers import dense
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_WIDTH, _DEPTH = 256, 12
_BLOCK_BYTES = 2 * 4 * _WIDTH * 4 * _WIDTH
_COLLECTIVE = re.compile(r'= (\w+)\[([\d,]*)\]\S* (all-gather|all-reduce|all-to-all|collective-permute)\(')


class _Block(nn.Module):
  """An MLP with four times the width inside, as in a transformer."""

  dtype: str

  @nn.compact
  def __call__(self, x):
    h = nn.swish(dense(4 * _WIDTH, dtype=self.dtype, name='in')(x))
    return x + dense(_WIDTH, dtype=self.dtype, name='out')(h)


class _Tower(nn.Module):
  """Blocks that are rematerialised, on few vectors: its weights are nearly all that it needs."""

  dtype: str

  @nn.compact
  def __call__(self, x):
    for i in range(_DEPTH):
      x = nn.remat(_Block)(self.dtype, name=f'block_{i}')(x)
    return x


@dataclasses.dataclass(frozen=True)
class _Objective:
  dtype: str = 'float32'

  def init(self, key):
    return _Tower(self.dtype).init(key, jnp.zeros((1, _WIDTH)))

  def loss(self, variables, batch, context, key):
    loss = jnp.mean(jnp.square(_Tower(self.dtype).apply(variables, batch['x'])))
    return loss, ({'loss': loss}, {})


def _lowered(dtype='float32', accumulate=1, **axes):
  optimizer = Optimizer('momentum', 1e-3)
  trainer = make_trainer(_Objective(dtype), optimizer, 2, 0.9, make_mesh(**axes), accumulate)
  return trainer.step.lower(trainer.like(), {'x': jax.ShapeDtypeStruct((16, _WIDTH), np.float32)}, {})


def _compiled(**more):
  # compilers for accelerators schedule for memory, and join no more than some megabytes of collectives
  options = {
    'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED',
    'xla_disable_hlo_passes': 'cpu-all-reduce-combiner',
  }
  return _lowered(**more).compile(options)


def _collectives(compiled):
  found = _COLLECTIVE.findall(compiled.as_text())
  return collections.Counter((kind, dtype, tuple(map(int, shape.split(',')))) for dtype, shape, kind in found if shape)
