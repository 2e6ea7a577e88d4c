"""Memory of a training step, against the compiled program of it and numbers that are counted by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from imagenet_synth.cascade import DiffusionObjective, Stage
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.cost import networks
from imagenet_synth.cost.memory import Division, EvaluationMemory, TrainingMemory
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


@pytest.mark.parametrize('name, accumulate', [('resnet', 1), ('resnet', 2), ('vit', 1)])
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


@pytest.mark.parametrize('optimizer, num_moments', [('adam', 2), ('momentum', 1)])
def test_weights_average_and_moments_are_copies_of_the_weights(optimizer, num_moments):
  network = _unet()
  parts = _memory(network, Optimizer(name=optimizer, learning_rate=1e-3)).parts(Division(8))
  weights = 4 * network.num_params
  assert parts['weights'] == parts['average'] == weights
  assert parts['optimizer'] == pytest.approx(num_moments * weights, abs=8)
  assert parts['sum of gradients'] == parts['gathered'] == 0
  assert parts['activations and gradients'] > weights


def test_adafactor_s_moments_are_factored():
  parts = _memory(_unet(), Optimizer(name='adafactor', learning_rate=1e-3)).parts(Division(1))
  assert parts['optimizer'] < parts['weights'] / 2


def test_devices_that_share_the_parameters_hold_a_part_each_and_gather_a_block():
  network = _unet(remat=True)
  memory = _memory(network, remat=True)
  whole, shared = memory.parts(Division(8)), memory.parts(Division(8, fsdp=8))
  for name in ('weights', 'average', 'optimizer'):
    # axes that 8 does not divide stay whole
    assert whole[name] / 8 <= shared[name] < whole[name] / 6
  largest = max(
    sum(leaf.size for leaf in jax.tree.leaves(block)) for block in nn.unbox(network.params).values()
  )
  assert shared['gathered'] == 4 * largest
  assert _memory(network).parts(Division(8, fsdp=8))['gathered'] == 4 * network.num_params
  both = memory.parts(Division(8, 2, 4))
  assert both['weights'] < whole['weights'] / 4


def test_accumulation_takes_a_second_tree_of_gradients_and_less_of_activations():
  memory = _memory(_unet(), batch_size=256)
  once, parts = memory.parts(Division(8)), memory.parts(Division(8, accumulate=4))
  assert parts['sum of gradients'] == parts['weights'] and parts['batch'] == once['batch']
  assert parts['activations and gradients'] < once['activations and gradients'] / 2


def test_a_network_in_16_bits_casts_its_weights_and_keeps_less():
  half, whole = _unet(dtype='bfloat16'), _unet()
  parts = _memory(half, itemsize=2).parts(Division(1))
  assert parts['gathered'] == 2 * half.num_params
  assert half.profile.activations.max() < 0.75 * whole.profile.activations.max()


def test_rematerialised_blocks_keep_less_and_compute_a_third_more():
  once, again = _unet().profile, _unet(remat=True).profile
  assert again.activations.max() < once.activations.max() / 2
  assert 1.15 < again.flops / once.flops < 4 / 3


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
