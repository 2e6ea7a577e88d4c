"""Classifiers on several devices and in parts of a batch: the steps of one device, and of the whole batch."""

import dataclasses
import os
import signal

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from imagenet_synth.core.devices import AXES, make_mesh
from imagenet_synth.core.stopping import Stopped
from imagenet_synth.data.batches import Blend, Images, Joined
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier
from imagenet_synth.train.classifier import ClassifierObjective, HeldOut
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.recipe import Recipe
from imagenet_synth.train.state import make_trainer

_NETWORKS = {
  'resnet': ResNet(stage_sizes=(1, 1), num_classes=3, width=8, stem='small', squeeze_ratio=0.25),
  'vit': ViT(patch_size=4, width=8, depth=2, num_heads=2, num_classes=3),
  'stem': ResNet(stage_sizes=(), num_classes=3, width=8, stem='small'),
}
# its steps are as long as gradients are: a wrong one is not hidden
_MOMENTUM = Optimizer('momentum', 0.1)


def _images(num, seed, brightness=1):
  rng = np.random.default_rng(seed)
  pictures = rng.integers(0, 256, (num, 8, 8, 3)) // brightness
  examples = [{'image': np.uint8(picture), 'label': i % 3} for i, picture in enumerate(pictures)]
  return Images(examples, 8, lambda example: example['label'])


def _steps(network, mesh, accumulate=1):
  """The state after two steps from weights without zeros, so that every gradient counts."""
  trainer = make_trainer(ClassifierObjective(network, 8, 3), _MOMENTUM, 2, 0.9, mesh, accumulate)
  rng = np.random.default_rng(0)
  draw = lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32)
  params, extra = jax.tree.map(draw, (trainer.abstract.params, trainer.abstract.extra))
  state = trainer.start_from({'params': params, **jax.tree.map(np.abs, extra)}, 3)
  images, labels = _images(16, seed=1).all()
  for _ in range(2):
    state, metrics = trainer.step(state, {'image': images, 'label': labels}, {})
  return state, [float(metrics[name]) for name in ('loss', 'grad_norm', 'accuracy')]


@pytest.fixture(scope='module')
def of_one_device():
  mesh = jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])
  return {name: _steps(_NETWORKS[name], mesh) for name in ('resnet', 'vit')}


def _assert_close(tree, expected, tolerance=1e-6):
  """Each leaf to a share of its largest number."""
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected)):
    name, other = jax.tree_util.keystr(path), np.asarray(other)
    # a softmax doesn't see the bias of its keys: its gradient is rounding error
    if "['key']['bias']" not in name:
      np.testing.assert_allclose(leaf, other, rtol=0, atol=tolerance * np.abs(other).max(), err_msg=name)


def _assert_same_steps(found, expected):
  (state, metrics), (other, others) = found, expected
  np.testing.assert_allclose(metrics, others, rtol=1e-6)
  for name in ('params', 'ema', 'extra', 'ema_extra'):
    _assert_close(getattr(state, name), getattr(other, name))
  # gradients, some of which are small differences of large numbers
  _assert_close(state.opt_state, other.opt_state, 1e-4)


_KERNELS = {'resnet': ('stage_1_block_0', 'conv_2'), 'vit': ('block_1', 'mlp_in')}


@pytest.mark.parametrize(
  'name, axes, shard',
  [
    pytest.param('resnet', {}, (3, 3, 16, 16), marks=pytest.mark.slow),
    ('resnet', {'fsdp': 2, 'tensor': 2}, (3, 3, 8, 8)),
    pytest.param('vit', {}, (8, 32), marks=pytest.mark.slow),
    ('vit', {'fsdp': 4, 'tensor': 2}, (2, 16)),
  ],
)
def test_eight_devices_take_the_steps_of_one(name, axes, shard, of_one_device):
  eight = _steps(_NETWORKS[name], make_mesh(**axes))
  _assert_same_steps(eight, of_one_device[name])
  block, layer = _KERNELS[name]
  pieces = eight[0].params[block][layer]['kernel'].addressable_shards
  assert {piece.data.shape for piece in pieces} == {shard}


def test_parts_of_a_batch_add_up_to_the_step_of_the_whole(of_one_device):
  _assert_same_steps(_steps(_NETWORKS['vit'], make_mesh(fsdp=2), accumulate=2), of_one_device['vit'])


def test_parts_have_batch_statistics_of_their_own_which_are_averaged_one_after_the_other():
  network = _NETWORKS['stem']
  objective = ClassifierObjective(network, 8, 3)
  trainer = make_trainer(objective, _MOMENTUM, 1, 0.0, make_mesh(), 2)
  variables = jax.device_get(nn.unbox(jax.jit(objective.init)(jax.random.key(0))))
  images, labels = _images(16, seed=1).all()
  # every second row is of the same part
  images[1::2] //= 4
  state, _ = trainer.step(trainer.start_from(variables, 0), {'image': images, 'label': labels}, {})
  expected = variables
  for part in (images[::2], images[1::2]):
    x = np.float32(part) / 127.5 - 1
    _, updated = network.apply(expected, x, train=True, mutable=['batch_stats'])
    expected = {**expected, **updated}
  _assert_close(state.extra['batch_stats'], expected['batch_stats'], 1e-5)


class _Log:
  """A writer that keeps what it is given."""

  def __init__(self):
    self.written = []

  def write_scalars(self, step, scalars):
    self.written.append((step, scalars))

  def write_speed(self, step, speed):
    pass

  def flush(self):
    pass

  def close(self):
    pass


def _train(path, recipe, data, network='vit', log=None, **more):
  log = log or _Log()
  make_writer = lambda folder, step: log
  model = _NETWORKS[network]
  variables = classifier.train(model, recipe, data, 8, 0, path, {'job': 'test'}, make_writer, 'test', **more)
  return variables, log.written


@pytest.mark.parametrize('together', [pytest.param(Joined, marks=pytest.mark.slow), Blend])
def test_weighted_images_count_the_same_in_parts_of_a_batch(together, tmp_path):
  """With parts of every second row, one is of real images alone, the other one of synthetic images."""
  parts = [_images(30, seed=1), _images(20, seed=2, brightness=3)]
  args = ((1.0, 0.25),) if together is Joined else ((1, 1), (1.0, 0.25))
  recipe = Recipe(_MOMENTUM, batch_size=16, num_steps=3)
  data = together(parts, *args)
  whole, written = _train(tmp_path / 'whole', recipe, data)
  cut = dataclasses.replace(recipe, accumulate=2, fsdp=2, tensor=2)
  in_parts, written_in_parts = _train(tmp_path / 'parts', cut, data)
  # the bias of queries has a gradient that is a small difference of large numbers
  _assert_close(in_parts, whole, 1e-5)
  ((_, last),), ((_, last_in_parts),) = written, written_in_parts
  assert last_in_parts == pytest.approx(last, rel=1e-5)
  # as they are handed on, all of them are on every device
  assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(in_parts))


def _tries(written):
  return [(step, values['held_out_accuracy']) for step, values in written if 'held_out_accuracy' in values]


def test_the_accuracy_on_images_held_out_is_written_on_the_way_and_changes_nothing(tmp_path, monkeypatch):
  recipe = Recipe(_MOMENTUM, batch_size=16, num_steps=4, fsdp=2, ema_decay=0.9)
  data, held_out = _images(48, seed=1), _images(30, seed=2)
  plain, written = _train(tmp_path / 'plain', recipe, data, 'stem')
  assert [step for step, _ in written] == [4]
  tried, more_written = _train(tmp_path / 'tried', recipe, data, 'stem', held_out=HeldOut(held_out, 2))
  jax.tree.map(np.testing.assert_array_equal, tried, plain)
  assert more_written[-1] == written[0] and [step for step, _ in more_written] == [2, 4, 4]
  # that of the averaged weights
  images, labels = held_out.all()
  predicted = classifier.predict(_NETWORKS['stem'], plain, images).logits.argmax(axis=1)
  assert _tries(more_written)[-1] == (4, np.mean(predicted == labels))

  # a run that is stopped and goes on tries at the same steps
  batches = classifier.batches

  def stopping(*args):
    for number, batch in enumerate(batches(*args)):
      if number == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  log = _Log()
  with monkeypatch.context() as patch, pytest.raises(Stopped):
    patch.setattr(classifier, 'batches', stopping)
    _train(tmp_path / 'stopped', recipe, data, 'stem', log, held_out=HeldOut(held_out, 2))
  _, after = _train(tmp_path / 'stopped', recipe, data, 'stem', held_out=HeldOut(held_out, 2))
  assert _tries(log.written + after) == _tries(more_written)
