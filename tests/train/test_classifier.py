"""A tiny ResNet on three classes of coloured noise: learns, resumes, loads, predicts."""

import dataclasses
import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.batches import Images
from imagenet_synth.data.randaugment import RandAugment
from imagenet_synth.data.source import Examples
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier
from imagenet_synth.train.classifier import ClassifierObjective
from imagenet_synth.train.mixing import mix, own_share
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.recipe import Recipe
from imagenet_synth.train.state import make_trainer

_MODEL = ResNet(stage_sizes=(1,), num_classes=3, block='basic', width=8, stem='small')
_RECIPE = Recipe(
  Optimizer('adamw', 1e-2, 'cosine', weight_decay=0.05),
  num_steps=40,
  batch_size=16,
  crop_padding=1,
  flip=True,
  label_smoothing=0.1,
)
_EVERYTHING = dataclasses.replace(
  _RECIPE,
  crop_padding=0,
  optimizer=Optimizer('momentum', 0.1, 'step', warmup=0.1, weight_decay=1e-4, decay_all=False, clip_norm=1.0),
  num_steps=None,
  epochs=10,
  random_resized_crop=True,
  randaugment=RandAugment(2, 4.0, 0.5, 0.5),
  erasing=0.25,
  mixup_alpha=0.2,
  cutmix_alpha=1.0,
  ema_decay=0.9,
)


class _Source(list, Examples):
  """Images whose class is the channel that is bright."""

  def __init__(self, num, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, (num, 8, 8, 3), np.uint8)
    images[np.arange(num), :, :, np.arange(num) % 3] += 128
    super().__init__({'image': image, 'label': i % 3} for i, image in enumerate(images))


def _images(num, seed):
  return Images(_Source(num, seed), 8, lambda example: example['label'])


class _Log:
  """A writer that keeps what it is given."""

  def __init__(self):
    self.scalars, self.closed = {}, False

  def write_scalars(self, step, scalars):
    self.scalars[step] = scalars

  def write_speed(self, step, speed):
    pass

  def flush(self):
    pass

  def close(self):
    self.closed = True


def _train(path, log=None, recipe=_RECIPE, seed=0):
  starts = []

  def make_writer(folder, step):
    assert folder == path
    starts.append(step)
    return log or _Log()

  variables = classifier.train(
    _MODEL, recipe, _images(60, seed=1), 8, seed, path, {'job': 'test'}, make_writer, 'test'
  )
  return jax.device_get(variables), starts


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  path, log = tmp_path_factory.mktemp('classifier'), _Log()
  variables, starts = _train(path, log)
  assert starts == [0] and log.closed
  return path, log, variables


def _assert_equal(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_separable_classes_are_learned(trained):
  _, log, variables = trained
  images, labels = _images(200, seed=2).all()
  outputs = classifier.predict(_MODEL, variables, images)
  assert np.mean(outputs.logits.argmax(axis=-1) == labels) > 0.95
  last = log.scalars[_RECIPE.num_steps]
  assert last['accuracy'] > 0.9 and last['loss'] < 0.7


def test_training_again_restores_what_is_finished(trained):
  path, _, variables = trained
  log = _Log()
  again, starts = _train(path, log)
  _assert_equal(again, variables)
  assert not starts and not log.scalars


def test_load_gives_what_training_returned(trained):
  path, _, variables = trained
  assert set(variables) == {'params', 'batch_stats'}
  _assert_equal(classifier.load(_MODEL, 8, 3, path), variables)
  with pytest.raises(InputError, match='no checkpoint in'):
    classifier.load(_MODEL, 8, 3, path / 'nowhere')


def test_one_device_trains_and_all_predict(trained, tmp_path):
  _, _, of_all = trained
  recipe, log = dataclasses.replace(_RECIPE, devices=1), _Log()
  variables = classifier.train(
    _MODEL, recipe, _images(60, seed=1), 8, 0, tmp_path, {}, lambda folder, step: log, 'test'
  )
  assert all(len(leaf.addressable_shards) == 8 for leaf in jax.tree.leaves(variables))
  # the same run, but for rounding
  for mine, others in zip(jax.tree.leaves(variables), jax.tree.leaves(of_all), strict=True):
    np.testing.assert_allclose(mine, others, rtol=0.05, atol=0.02)
  images, labels = _images(200, seed=2).all()
  assert np.mean(classifier.predict(_MODEL, variables, images).logits.argmax(axis=-1) == labels) > 0.95


def test_the_seed_is_that_of_the_run(trained, tmp_path):
  _, _, variables = trained
  _assert_equal(_train(tmp_path / 'same')[0], variables)
  heads = [tree['params']['head']['kernel'] for tree in (variables, _train(tmp_path / 'other', seed=1)[0])]
  assert np.abs(heads[0] - heads[1]).max() > 1e-3


@pytest.mark.parametrize('batch_size', [1, 7, 23, 50])
def test_predictions_depend_on_neither_batch_size_nor_neighbours(trained, batch_size):
  _, _, variables = trained
  images, _ = _images(23, seed=3).all()
  expected = classifier.predict(_MODEL, variables, images)
  assert expected.logits.shape == (23, 3) and expected.features.shape == (23, 8)
  assert expected.logits.dtype == expected.features.dtype == np.float32
  order = np.random.default_rng(0).permutation(23)
  outputs = classifier.predict(_MODEL, variables, images[order], batch_size)
  for column, other in zip(outputs, expected):
    np.testing.assert_allclose(column, other[order], rtol=1e-4, atol=1e-5)


def test_evaluation_leaves_running_statistics_alone(trained):
  _, _, variables = trained
  images, _ = _images(23, seed=3).all()
  outputs = _MODEL.apply(variables, np.float32(images) / 127.5 - 1, train=False)
  np.testing.assert_allclose(
    classifier.predict(_MODEL, variables, images).logits, outputs.logits, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_loss_is_the_cross_entropy_with_smoothed_labels(smoothing):
  objective = ClassifierObjective(_MODEL, 8, 3, smoothing)
  variables = nn.unbox(jax.jit(objective.init)(jax.random.key(0)))
  images, labels = _images(16, seed=4).all()
  loss, (metrics, extra) = objective.loss(
    variables, {'image': images, 'label': labels}, {}, jax.random.key(1)
  )
  outputs, _ = _MODEL.apply(variables, np.float32(images) / 127.5 - 1, train=True, mutable=['batch_stats'])
  logits = np.asarray(outputs.logits, np.float64)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  targets = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
  assert float(loss) == pytest.approx(-np.mean(np.sum(targets * log_p, axis=-1)), rel=1e-5)
  assert float(metrics['accuracy']) == np.mean(logits.argmax(axis=-1) == labels)
  assert set(extra) == {'batch_stats'}


@pytest.mark.parametrize('alphas', [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_loss_of_mixed_images_is_that_of_both_labels_by_their_shares(alphas):
  objective = ClassifierObjective(_MODEL, 8, 3, 0.1, *alphas)
  variables = nn.unbox(jax.jit(objective.init)(jax.random.key(0)))
  # as after training: with the logits near 0 of a fresh head, all labels have the same loss
  variables['params']['head']['kernel'] *= 300
  images, labels = _images(16, seed=4).all()
  key = jax.random.key(1)
  loss, (metrics, _) = objective.loss(variables, {'image': images, 'label': labels}, {}, key)
  share = own_share(jax.random.fold_in(key, 1), 8, *alphas)
  x = mix(np.float32(images) / 127.5 - 1, share)
  outputs, _ = _MODEL.apply(variables, x, train=True, mutable=['batch_stats'])
  log_p = np.asarray(jax.nn.log_softmax(outputs.logits), np.float64)
  own, other = (
    -np.sum((np.eye(3)[y] * 0.9 + 0.1 / 3) * log_p, axis=-1) for y in (labels, np.roll(labels, 1))
  )
  weight = float(share.mean())
  assert 0 < weight < 1 and np.abs(own - other).max() > 1
  assert float(loss) == pytest.approx(np.mean(weight * own + (1 - weight) * other), rel=1e-4)
  assert float(metrics['accuracy']) == np.mean(outputs.logits.argmax(axis=-1) == labels)


def _softmax_loss(outputs, labels):
  log_p = np.asarray(jax.nn.log_softmax(outputs.logits), np.float64)
  return -log_p[np.arange(len(labels)), labels]


@pytest.fixture(scope='module')
def initial():
  """Variables with logits that differ, so that a weight makes a difference."""
  variables = nn.unbox(jax.jit(ClassifierObjective(_MODEL, 8, 3).init)(jax.random.key(0)))
  variables['params']['head']['kernel'] *= 300
  return variables


def _forward(variables, x):
  return _MODEL.apply(variables, x, train=True, mutable=['batch_stats'])


def test_the_gradient_of_a_weighted_loss_is_the_weighted_mean_of_the_images_own(initial):
  objective = ClassifierObjective(_MODEL, 8, 3)
  images, labels = _images(16, seed=4).all()
  weights = np.float32(np.tile([1, 1, 0.25, 3], 4))
  batch = {'image': images, 'label': labels, 'weight': weights}

  def head_gradient(batch):
    def loss(kernel):
      params = initial['params']
      head = {**params['head'], 'kernel': kernel}
      variables = {**initial, 'params': {**params, 'head': head}}
      return objective.loss(variables, batch, {}, jax.random.key(1))[0]

    return jax.value_and_grad(loss)(initial['params']['head']['kernel'])

  loss, grad = head_gradient(batch)
  outputs, _ = _forward(initial, np.float32(images) / 127.5 - 1)
  losses = _softmax_loss(outputs, labels)
  assert float(loss) == pytest.approx(weights @ losses / weights.sum(), rel=1e-4)
  # of a linear layer: features times what the probabilities are off
  off = np.asarray(jax.nn.softmax(outputs.logits)) - np.eye(3)[labels]
  expected = np.asarray(outputs.features).T @ (weights[:, None] * off) / weights.sum()
  np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)
  # all of one weight are as without, and images of weight 0 are as none
  same, same_grad = head_gradient(batch | {'weight': np.full(16, 2, np.float32)})
  plain, plain_grad = head_gradient({'image': images, 'label': labels})
  assert float(same) == pytest.approx(float(plain), rel=1e-6)
  np.testing.assert_allclose(same_grad, plain_grad, rtol=1e-4, atol=1e-6)


def test_a_mixed_image_has_a_mixture_of_both_weights(initial):
  images, labels = _images(16, seed=4).all()
  weights, key = np.float32(np.tile([1, 0.25], 8)), jax.random.key(1)
  batch = {'image': images, 'label': labels, 'weight': weights}
  loss, _ = ClassifierObjective(_MODEL, 8, 3, mixup_alpha=0.8).loss(initial, batch, {}, key)
  share = own_share(jax.random.fold_in(key, 1), 8, 0.8, 0.0)
  outputs, _ = _forward(initial, mix(np.float32(images) / 127.5 - 1, share))
  own = float(share.mean())
  losses = own * _softmax_loss(outputs, labels) + (1 - own) * _softmax_loss(outputs, np.roll(labels, 1))
  mixed = own * weights + (1 - own) * np.roll(weights, 1)
  assert 0.05 < own < 0.95
  assert float(loss) == pytest.approx(mixed @ losses / mixed.sum(), rel=1e-4)


@pytest.mark.parametrize('mixup_alpha', [0.0, 0.8])
def test_groups_are_normalised_on_their_own_and_the_first_alone_is_remembered(initial, mixup_alpha):
  images, labels = _images(16, seed=4).all()
  # of each four rows, the last one is of another kind
  kinds = np.tile([0, 0, 0, 1], 4)
  images = np.where((kinds == 1)[:, None, None, None], images // 4, images)
  weights, key = np.float32(np.where(kinds == 0, 1, 0.5)), jax.random.key(1)
  objective = ClassifierObjective(_MODEL, 8, 3, mixup_alpha=mixup_alpha)
  apart = dataclasses.replace(objective, groups=(3, 1))
  batch = {'image': images, 'label': labels, 'weight': weights}
  loss, (metrics, extra) = apart.loss(initial, batch, {}, key)
  parts = [{name: rows[kinds == kind] for name, rows in batch.items()} for kind in (0, 1)]
  of_parts = [objective.loss(initial, part, {}, key) for part in parts]
  assert float(loss) == pytest.approx(float(12 * of_parts[0][0] + 2 * of_parts[1][0]) / 14, rel=1e-5)
  accuracy = sum(len(part['label']) * of[1][0]['accuracy'] for part, of in zip(parts, of_parts)) / 16
  assert float(metrics['accuracy']) == pytest.approx(float(accuracy))
  jax.tree.map(np.testing.assert_array_equal, extra, of_parts[0][1][1])
  # together, they would have other statistics, and another loss
  together, (_, other) = objective.loss(initial, batch, {}, key)
  assert abs(float(together) - float(loss)) > 1e-3
  assert (
    np.abs(other['batch_stats']['stem_norm']['mean'] - extra['batch_stats']['stem_norm']['mean']).max()
    > 0.005
  )


def test_groups_take_no_rows_from_other_devices():
  """Their step exchanges sums, as every step does, but neither gathers nor permutes."""
  texts = {}
  for groups in ((), (1, 1)):
    objective = ClassifierObjective(_MODEL, 8, 3, groups=groups)
    trainer = make_trainer(objective, _RECIPE.optimizer, 2, 0.0, make_mesh())
    batch = {
      'image': jax.ShapeDtypeStruct((32, 8, 8, 3), np.uint8),
      'label': jax.ShapeDtypeStruct((32,), np.int32),
      'weight': jax.ShapeDtypeStruct((32,), np.float32),
    }
    texts[groups] = trainer.step.lower(trainer.abstract, batch, {}).compile().as_text()
  for text in texts.values():
    assert 'all-reduce' in text
    assert not re.search('all-gather|all-to-all|collective-permute|collective-broadcast', text)


def test_a_transformer_has_no_batch_statistics_at_any_number_of_classes():
  vit = ViT(patch_size=4, width=8, depth=1, num_heads=1)
  assert not classifier.has_batch_statistics(vit, 8)
  assert classifier.has_batch_statistics(_MODEL, 8)
  assert classifier.has_batch_statistics(_MODEL.clone(num_classes=0), 8)


@pytest.fixture(scope='module')
def trained_with_everything(tmp_path_factory):
  path, log = tmp_path_factory.mktemp('everything'), _Log()
  variables, _ = _train(path, log, _EVERYTHING)
  return path, log, variables


def test_with_everything_on_separable_classes_are_learned(trained_with_everything):
  path, log, variables = trained_with_everything
  # 10 epochs of 60 in batches of 16
  assert max(log.scalars) == 38
  images, labels = _images(200, seed=2).all()
  outputs = classifier.predict(_MODEL, variables, images)
  assert np.mean(outputs.logits.argmax(axis=-1) == labels) > 0.9


def test_with_everything_on_a_run_goes_on_and_loads_without_a_step(trained_with_everything):
  path, _, variables = trained_with_everything
  again, starts = _train(path, recipe=_EVERYTHING)
  assert not starts
  _assert_equal(again, variables)
  _assert_equal(classifier.load(_MODEL, 8, 3, path), variables)
  _assert_equal(load_ema(path / 'checkpoints', 38, variables), variables)
