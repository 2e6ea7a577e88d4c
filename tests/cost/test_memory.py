"""Memory of a training step, against the compiled program of it and numbers that are counted by hand."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.core.program import Profile
from imagenet_synth.cost import networks
from imagenet_synth.cost.memory import Division, EvaluationMemory, TrainingMemory
from imagenet_synth.cost.networks import Network
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.unet import UNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train.classifier import ClassifierObjective
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import Trainer

_ADAM = Optimizer(name='adam', learning_rate=1e-3)
_CLASSIFIERS = {
  'resnet': ResNet(num_classes=10, stage_sizes=(1, 1), width=16, stem='small'),
  'vit': ViT(num_classes=10, patch_size=4, width=64, depth=3, num_heads=2),
}
_SIZE = 32


def _unet(remat=False, dtype='float32'):
  network = UNet(
    channels=32,
    channel_multiples=(1, 2),
    num_res_blocks=1,
    attention_sizes=(),
    head_size=16,
    remat=remat,
    dtype=dtype,
  )
  return networks.stage_training(DiffusionObjective(Stage(size=16, channels=3, network=network), 8), 4)


def _memory(network, optimizer=_ADAM, batch_size=64, itemsize=4, remat=False):
  return TrainingMemory(network, optimizer, batch_size, 3 * _SIZE**2, itemsize, remat)


@pytest.mark.parametrize(
  'name, accumulate', [('resnet', 1), pytest.param('resnet', 2, marks=pytest.mark.slow), ('vit', 1)]
)
def test_the_estimate_is_near_the_compiled_step(name, accumulate):
  """On eight devices, with the memory analysis and the operations that XLA tells."""
  objective = ClassifierObjective(_CLASSIFIERS[name], _SIZE, 3)
  batch_size = 64 * accumulate
  trainer = Trainer(objective, _ADAM, 10, 0.99, make_mesh(), accumulate)
  batch = {
    'image': jax.ShapeDtypeStruct((batch_size, _SIZE, _SIZE, 3), jnp.uint8),
    'label': jax.ShapeDtypeStruct((batch_size,), jnp.int32),
  }
  lowered = trainer.step.lower(trainer.abstract, batch, {})
  network = networks.classifier_training(objective)
  if accumulate == 1:
    flops = lowered.cost_analysis()['flops']
    assert batch_size * network.profile.flops == pytest.approx(flops, rel=0.2)
  compiled = lowered.compile().memory_analysis()
  used = compiled.argument_size_in_bytes + compiled.output_size_in_bytes + compiled.temp_size_in_bytes
  used -= compiled.alias_size_in_bytes
  estimate = _memory(network, batch_size=batch_size).peak(Division(8, accumulate=accumulate))
  assert estimate == pytest.approx(used, rel=0.2)


_SIZES = {'in': (256, 512), 'out': (512, 1024)}


def _two_layers():
  """A network of two kernels, whose program has 100 bytes an image, then all gradients."""

  def kernel(shape):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), ('embed', 'mlp'))

  params = {name: {'kernel': kernel(shape)} for name, shape in _SIZES.items()}
  weights = 4 * sum(math.prod(shape) for shape in _SIZES.values())
  return Network(params, Profile(0.0, np.array([100, 40]), np.array([0, weights])))


_WEIGHTS = 4 * sum(math.prod(shape) for shape in _SIZES.values())


@pytest.mark.parametrize('optimizer, num_moments', [('adam', 2), ('momentum', 1)])
def test_weights_average_and_moments_are_copies_of_the_weights(optimizer, num_moments):
  memory = _memory(_two_layers(), Optimizer(name=optimizer, learning_rate=1e-3))
  parts = memory.parts(Division(8))
  assert parts['weights'] == parts['average'] == _WEIGHTS
  assert parts['optimizer'] == pytest.approx(num_moments * _WEIGHTS, abs=8)
  assert parts['sum of gradients'] == parts['gathered'] == 0
  assert parts['activations and gradients'] == pytest.approx(1.1 * (8 * 40 + _WEIGHTS), abs=1)
  assert memory.peak(Division(8)) == sum(parts.values())


def test_adafactor_s_moments_are_factored():
  """A row and a column for each kernel."""
  parts = _memory(_two_layers(), Optimizer(name='adafactor', learning_rate=1e-3)).parts(Division(1))
  assert parts['optimizer'] == pytest.approx(4 * (256 + 512 + 512 + 1024), abs=64)


def test_devices_that_share_the_parameters_hold_a_part_each_and_gather_a_block():
  parts = _memory(_two_layers(), itemsize=2, remat=True).parts(Division(8, fsdp=2, tensor=4))
  assert parts['weights'] == parts['average'] == _WEIGHTS / 8
  assert parts['optimizer'] == pytest.approx(_WEIGHTS / 4, abs=8)
  # the larger kernel, in 16 bits, as tensor cuts it
  assert parts['gathered'] == 2 * 512 * 1024 / 4
  parts = _memory(_two_layers()).parts(Division(8, fsdp=8))
  # all of them, as nothing is let go
  assert parts['gathered'] == _WEIGHTS


def test_accumulation_takes_a_second_tree_of_gradients_and_less_of_activations():
  memory = _memory(_two_layers(), batch_size=2**24)
  once, parts = memory.parts(Division(8)), memory.parts(Division(8, accumulate=4))
  assert parts['sum of gradients'] == _WEIGHTS and once['sum of gradients'] == 0
  assert parts['batch'] == once['batch'] == 2**21 * 3 * _SIZE**2
  assert once['activations and gradients'] == pytest.approx(1.1 * 2**21 * 100)
  assert parts['activations and gradients'] == pytest.approx(1.1 * 2**19 * 100)


def test_rematerialised_blocks_and_16_bits_keep_less():
  once, again, half = _unet(), _unet(remat=True), _unet(dtype='bfloat16')
  assert again.profile.activations.max() < once.profile.activations.max() / 2
  assert 1.15 < again.profile.flops / once.profile.flops < 4 / 3
  assert half.profile.activations.max() < 0.75 * once.profile.activations.max()
  parts = _memory(half, itemsize=2).parts(Division(1))
  assert parts['gathered'] == 2 * half.num_params


def test_sampling_keeps_the_weights_of_all_stages_and_the_largest_batch():
  stage = Stage(size=16, channels=3, network=UNet(32, (1, 2), 1, (), 16, dtype='bfloat16'))
  network = networks.stage_evaluation(stage, (4, 8))
  memory = lambda *sizes: EvaluationMemory([(network, 2, of) for of in sizes], [0] * len(sizes))
  weights = 2 * network.num_params
  one = memory(8).peak(Division(8)) - weights
  assert 0 < one
  assert memory(80, 8).peak(Division(8)) - 2 * weights == pytest.approx(10 * one, rel=0.01)
  # half of a batch at a time
  assert memory(80).peak(Division(8, accumulate=2)) - weights == pytest.approx(5 * one, rel=0.01)
