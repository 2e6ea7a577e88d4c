"""A step whose weights are cut along `fsdp`: what devices send each other, and what each holds meanwhile."""

import collections
import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.layers import dense
from imagenet_synth.models.unet import UNet
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_WIDTH, _DEPTH = 256, 6
# of its weights as float32
_BLOCK_BYTES = 4 * 2 * _WIDTH * 4 * _WIDTH


class _Block(nn.Module):
  """An MLP with four times the width inside, as in a transformer."""

  @nn.compact
  def __call__(self, x):
    h = nn.swish(dense(4 * _WIDTH, dtype=jnp.bfloat16, name='in')(x))
    return x + dense(_WIDTH, dtype=jnp.bfloat16, name='out')(h)


class _Tower(nn.Module):
  """Rematerialised blocks, used on few vectors: the weights are nearly all that it needs memory for."""

  @nn.compact
  def __call__(self, x):
    for i in range(_DEPTH):
      x = nn.remat(_Block)(name=f'block_{i}')(x)
    return x


@dataclasses.dataclass(frozen=True)
class _Objective:
  def init(self, key):
    return _Tower().init(key, jnp.zeros((1, _WIDTH)))

  def loss(self, variables, batch, context, key):
    loss = jnp.mean(jnp.square(_Tower().apply(variables, batch['x'])))
    return loss, ({'loss': loss}, {})


def _lowered(accumulate=1, **axes):
  optimizer = Optimizer('momentum', 1e-3)
  trainer = make_trainer(_Objective(), optimizer, 2, 0.9, make_mesh(**axes), accumulate)
  return trainer.step.lower(trainer.like(), {'x': jax.ShapeDtypeStruct((16, _WIDTH), np.float32)}, {})


def _compiled(accumulate=1, **axes):
  """As compilers for accelerators would do it where CPUs need not.

  These schedule for memory, do not join all collectives to one, and heed the barrier that holds gathered
  weights in the loop over parts of a batch.
  """
  return _lowered(accumulate, **axes).compile(
    {
      'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED',
      'xla_disable_hlo_passes': 'cpu-all-reduce-combiner,while-loop-invariant-code-motion',
    }
  )


def _blocks_held(compiled):
  """The memory that the step takes beside its state and batch, in whole float32 blocks."""
  return compiled.memory_analysis().temp_size_in_bytes / _BLOCK_BYTES


def _kernels(compiled):
  """How often each kind of collective is used on whole kernels, by its result's shape."""
  pattern = r'= \w+\[(256,1024|1024,256)\]\S* (all-gather|all-reduce|all-to-all|collective-permute)\('
  return collections.Counter((kind, shape) for shape, kind in re.findall(pattern, compiled.as_text()))


# for CPUs, XLA 0.12 puts the second pass of all blocks before the gradient of the last one, whatever the
# scheduler: what it holds at a time says nothing of what compilers for accelerators do
_SCHEDULES_FOR_MEMORY = jax.__version__.startswith('0.10.')


@pytest.mark.skipif(not _SCHEDULES_FOR_MEMORY, reason='this XLA does not schedule for memory on CPUs')
def test_a_device_holds_its_share_of_the_gradients_and_few_whole_blocks():
  # all gradients, of which some are still bfloat16
  assert _blocks_held(_compiled()) > 0.9 * _DEPTH
  # an eighth of them; and of one block weights as float32, as CPUs compute, and its gradient
  share = _DEPTH / 8
  assert share < _blocks_held(_compiled(fsdp=8)) < share + 2


def test_whole_kernels_are_gathered_twice_and_their_gradients_reduced_once():
  cut = _compiled(fsdp=8)
  # gathered on the way there and on the way back; reduced once (CPUs have no reduce-scatter), where a
  # gradient is computed with rows and columns exchanged before they are exchanged back
  assert _kernels(cut) == {
    ('all-gather', '256,1024'): 2 * _DEPTH,
    ('all-gather', '1024,256'): 2 * _DEPTH,
    ('all-reduce', '256,1024'): 2 * _DEPTH,
  }


def test_the_sum_over_parts_of_a_batch_is_cut_too():
  share = _DEPTH / 8
  compiled = _compiled(accumulate=2, fsdp=8)
  # the sum and what is added to it
  assert 2 * share < _blocks_held(compiled) < 2 * share + 2
  assert sum(_kernels(compiled).values()) == 6 * _DEPTH


def test_weights_are_bound_to_the_part_of_a_batch_that_they_are_gathered_for():
  """Or they would be gathered before the loop, all at once."""
  barrier = re.compile(r'= stablehlo.optimization_barrier .* : (.*)')
  bound = [line for line in barrier.findall(_lowered(2, fsdp=8).as_text()) if line.endswith('tensor<i32>')]
  assert [line.count('tensor<256x1024xf32>') for line in bound] == [_DEPTH]


_NETWORKS = {
  'unet': UNet(
    channels=32,
    channel_multiples=(1, 2),
    num_res_blocks=1,
    attention_sizes=(4,),
    remat=True,
    dtype='bfloat16',
  ),
  'efficient_unet': EfficientUNet(
    channels=(32, 64),
    num_res_blocks=(1, 1),
    self_attention=(False, True),
    text_attention=(False, True),
    num_heads=2,
    remat=True,
    dtype='bfloat16',
  ),
  'deepfloyd': IFUNet(
    channels=(32, 64),
    layers_per_block=(1, 1),
    attention=(False, True),
    cross_attention_size=32,
    head_size=32,
    pool_heads=2,
    remat=True,
    dtype='bfloat16',
  ),
}


@pytest.mark.parametrize('name', _NETWORKS)
def test_networks_gather_in_bfloat16_where_a_layer_computes(name):
  variance = name == 'deepfloyd'
  stage = Stage(8, 1, _NETWORKS[name], prediction='eps', learned_variance=variance)
  mesh = make_mesh(fsdp=8)
  trainer = make_trainer(DiffusionObjective(stage, text_size=32), Optimizer('adam', 1e-3), 2, 0.9, mesh)
  shapes = {'image': ((16, 8, 8, 1), np.uint8), 'text': ((16, 2, 32), np.float32)}
  batch = {key: jax.ShapeDtypeStruct(*value) for key, value in shapes.items()}
  context = {'null': jax.ShapeDtypeStruct((2, 32), np.float32)}
  lowered = trainer.step.lower(trainer.like(), batch, context).as_text()
  # a constraint to be whole comes after one to be cut where weights are gathered, before it for gradients
  constraint = r'(%\S+) = sdy.sharding_constraint (%\S+) <@mesh, \[(.*)\]> : tensor<([\dx]*)x(\w+)>'
  found = {line[0]: line[1:] for line in re.findall(constraint, lowered)}
  gathered = collections.Counter(
    (dtype, shape)
    for source, axes, shape, dtype in found.values()
    if 'fsdp' not in axes and 'fsdp' in found.get(source, ('', ''))[1]
  )
  scattered = collections.Counter(
    (dtype, shape)
    for source, axes, shape, dtype in found.values()
    if 'fsdp' in axes and source in found and 'fsdp' not in found[source][1]
  )
  in_blocks, cut = collections.Counter(), collections.Counter()
  for (path, sharding), param in zip(
    jax.tree.leaves_with_path(trainer.shardings.params), jax.tree.leaves(trainer.abstract.params), strict=True
  ):
    if 'fsdp' not in sharding.spec:
      continue
    dtype = 'f32' if path[0].key == 'conv_out' else 'bf16'
    key = dtype, 'x'.join(map(str, param.shape))
    cut[key] += 1
    # a block is a module with modules in it; conditioning is not rematerialised
    in_blocks[key] += (
      len(path) > 2
      and path[0].key not in ('conditioning', 'add_embedding')
      and (not path[0].key.endswith('_embedding'))
    )
  assert gathered == cut + in_blocks
  assert scattered == cut
  assert sum(cut.values()) > 20
