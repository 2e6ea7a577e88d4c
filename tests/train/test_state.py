"""One training step: the same on any mesh; its randomness; its average of the weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.devices import AXES, make_mesh
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_ADAM = Optimizer('adam', 1e-2)
_ADAFACTOR = Optimizer('adafactor', 1e-2)
_TRACES = []


@dataclasses.dataclass(frozen=True)
class _NoisyMean:
  """Learns the mean of noised vectors; its 'statistics' are the mean of the last batch."""

  size: int = 3
  has_statistics: bool = True

  def init(self, key):
    params = {'params': {'mean': jax.random.normal(key, (self.size,))}}
    return {**params, **self._statistics(jnp.zeros(self.size))}

  def _statistics(self, mean):
    return {'statistics': {'mean': mean}} if self.has_statistics else {}

  def loss(self, variables, batch, context, key):
    _TRACES.append(self)
    x = batch['x'] + context['shift'] + jax.random.normal(key, batch['x'].shape)
    loss = 0.5 * jnp.sum(jnp.square(variables['params']['mean'] - x.mean(axis=0)))
    return loss, ({'loss': loss}, self._statistics(x.mean(axis=0)))


def _one_device_mesh():
  return jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])


def _trainer(optimizer=_ADAM, ema_decay=0.0, size=3):
  return make_trainer(_NoisyMean(size), optimizer, 30, ema_decay, make_mesh())


def _batch(step, size=3):
  return {'x': np.random.default_rng(step).normal(size=(8, size)).astype(np.float32)}


_CONTEXT = {'shift': np.float32(0.5)}


def _noised_mean(seed, step):
  """What a step sees: its noise is of the seed and the step, counted from 0."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  return (_batch(step)['x'] + 0.5 + jax.random.normal(key, (8, 3))).mean(axis=0)


def _diffusion_trainer(optimizer, mesh):
  network = EfficientUNet(
    channels=(8,), num_res_blocks=(1,), self_attention=(True,), text_attention=(True,), num_heads=2
  )
  objective = DiffusionObjective(Stage(4, 1, network), text_size=3)
  return make_trainer(objective, optimizer, 2, 0.9, mesh)


def _diffusion_steps(trainer, num_steps):
  """Steps from weights without zeros, as after training, so that every gradient counts."""
  rng = np.random.default_rng(0)
  draw = lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32)
  params = jax.tree.map(draw, trainer.abstract.params)
  state, losses = trainer.start_from({'params': params}, 3), []
  prompts = rng.normal(size=(5, 2, 3)).astype(np.float32)
  context = {'null': np.zeros_like(prompts[0])}
  for _ in range(num_steps):
    batch = {'image': rng.integers(0, 256, (8, 4, 4, 1), np.uint8), 'text': prompts[rng.integers(0, 5, 8)]}
    state, metrics = trainer.step(state, batch, context)
    losses.append([float(metrics[name]) for name in ('loss', 'grad_norm')])
  return state, losses


def _assert_close(tree, expected, tolerance):
  """Each leaf to a share of its largest number."""
  for (path, leaf), other in zip(
    jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True
  ):
    name, other = jax.tree_util.keystr(path), np.asarray(other)
    # a softmax doesn't see the bias of its keys: its gradient is rounding error, scaled up to a step
    if "['text_pool']['key']['bias']" not in name:
      np.testing.assert_allclose(
        leaf, other, rtol=0, atol=tolerance * np.abs(other).max() + 1e-12, err_msg=name
      )


@pytest.mark.parametrize(
  'optimizer, axes, shard',
  [
    pytest.param(_ADAM, {}, (3, 3, 8, 8), marks=pytest.mark.slow),
    pytest.param(_ADAM, {'fsdp': 2}, (3, 3, 4, 8), marks=pytest.mark.slow),
    pytest.param(_ADAM, {'tensor': 2}, (3, 3, 8, 4), marks=pytest.mark.slow),
    pytest.param(_ADAM, {'fsdp': 2, 'tensor': 2}, (3, 3, 4, 4), marks=pytest.mark.slow),
    (_ADAFACTOR, {'fsdp': 2, 'tensor': 2}, (3, 3, 4, 4)),
  ],
)
def test_eight_devices_take_the_steps_of_one(optimizer, axes, shard):
  one, losses = _diffusion_steps(_diffusion_trainer(optimizer, _one_device_mesh()), 2)
  eight, losses_8 = _diffusion_steps(_diffusion_trainer(optimizer, make_mesh(**axes)), 2)
  np.testing.assert_allclose(losses_8, losses, rtol=1e-4)
  for name in ('params', 'ema', 'opt_state'):
    _assert_close(getattr(eight, name), getattr(one, name), 2e-3)
  kernel = eight.params['down_0_0']['conv_in']['kernel']
  assert kernel.shape == (3, 3, 8, 8)
  assert {piece.data.shape for piece in kernel.addressable_shards} == {shard}


@dataclasses.dataclass(frozen=True)
class _Regression:
  """Mean squared error without noise; its 'statistics' count the parts."""

  def init(self, key):
    return {'params': {'w': jax.random.normal(key, (3, 2))}, 'statistics': {'parts': jnp.zeros(())}}

  def loss(self, variables, batch, context, key):
    loss = jnp.mean(jnp.square(batch['x'] @ variables['params']['w'] - context['y']))
    parts = variables['statistics']['parts'] + 1
    return loss, ({'loss': loss}, {'statistics': {'parts': parts}})


@pytest.mark.parametrize('axes', [{}, {'fsdp': 2, 'tensor': 2}])
@pytest.mark.parametrize('accumulate', [1, 2, 4])
def test_parts_of_a_batch_add_up_to_the_step_of_the_whole(accumulate, axes):
  trainer = make_trainer(_Regression(), Optimizer('momentum', 0.1), 3, 0.9, make_mesh(**axes), accumulate)
  w = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
  x = np.random.default_rng(2).normal(size=(32, 3)).astype(np.float32)
  state = trainer.init(0).replace(params={'w': jax.device_put(w, trainer.shardings.params['w'])})
  state, metrics = trainer.step(state, {'x': x}, {'y': np.float32(0.5)})
  error = x @ w - 0.5
  # the first step of Nesterov's momentum is 1.9 gradients
  np.testing.assert_allclose(state.params['w'], w - 0.19 * 2 * x.T @ error / error.size, rtol=1e-4, atol=1e-6)
  assert float(metrics['loss']) == pytest.approx(np.mean(error**2), rel=1e-5)
  assert state.extra['statistics']['parts'] == accumulate


def test_parts_of_a_batch_draw_noise_of_their_own():
  trainer = make_trainer(_NoisyMean(), Optimizer('momentum', 0.1), 3, 0.0, make_mesh(), 2)
  state = trainer.init(0)
  batch = {'x': np.zeros((16, 3), np.float32)}
  state, _ = trainer.step(state, batch, _CONTEXT)
  key = jax.random.fold_in(jax.random.key(0), 0)
  last = jax.random.normal(jax.random.fold_in(key, 1), (8, 3))
  np.testing.assert_allclose(state.extra['statistics']['mean'], 0.5 + last.mean(axis=0), atol=1e-6)


def test_moments_are_cut_as_their_parameters():
  trainer = _diffusion_trainer(_ADAM, make_mesh(fsdp=2, tensor=2))
  moments = trainer.shardings.opt_state[0]
  assert moments.mu == moments.nu == trainer.shardings.params == trainer.shardings.ema
  assert moments.count.is_fully_replicated
  assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(moments.mu))


def test_like_has_the_shapes_and_shardings_of_a_state():
  trainer = _diffusion_trainer(_ADAM, make_mesh(fsdp=2, tensor=2))
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), trainer.abstract.params)
  describe = lambda x: (x.shape, x.dtype, x.sharding)
  assert jax.tree.map(describe, trainer.like()) == jax.tree.map(
    describe, trainer.start_from({'params': params}, 0)
  )


def test_a_step_draws_noise_from_seed_and_step_and_keeps_statistics():
  trainer = _trainer()
  for seed in (0, 7):
    state = trainer.init(seed)
    for step in range(3):
      state, metrics = trainer.step(state, _batch(step), _CONTEXT)
      np.testing.assert_allclose(state.extra['statistics']['mean'], _noised_mean(seed, step), atol=1e-6)
    assert int(state.step) == 3 and int(state.seed) == seed
    assert set(metrics) == {'loss', 'grad_norm', 'update_norm', 'param_norm', 'learning_rate'}


def test_a_step_goes_down_the_gradient_and_tells_its_norm():
  trainer = _trainer(Optimizer('momentum', 0.1))
  state = trainer.init(0)
  gradient = np.asarray(state.params['mean']) - _noised_mean(0, 0)
  before = np.asarray(state.params['mean'])
  state, metrics = trainer.step(state, _batch(0), _CONTEXT)
  # the first step of Nesterov's momentum is 1.9 gradients
  np.testing.assert_allclose(state.params['mean'], before - 0.19 * gradient, rtol=1e-5)
  np.testing.assert_allclose(metrics['grad_norm'], np.linalg.norm(gradient), rtol=1e-5)
  np.testing.assert_allclose(metrics['update_norm'], 0.19 * np.linalg.norm(gradient), rtol=1e-5)
  np.testing.assert_allclose(metrics['param_norm'], np.linalg.norm(state.params['mean']), rtol=1e-5)
  np.testing.assert_allclose(metrics['loss'], 0.5 * np.sum(gradient**2), rtol=1e-5)


def test_the_learning_rate_that_is_told_is_that_of_the_step():
  trainer = _trainer(Optimizer('adam', 0.1, 'cosine', warmup_steps=2))
  state, rates = trainer.init(0), []
  for step in range(3):
    state, metrics = trainer.step(state, _batch(step), _CONTEXT)
    rates.append(float(metrics['learning_rate']))
  assert rates == pytest.approx([0.0, 0.05, 0.1])


@pytest.mark.parametrize('ema_decay', [0.5, 0.9999])
def test_the_average_is_that_of_the_formula(ema_decay):
  trainer = _trainer(ema_decay=ema_decay)
  state = trainer.init(0)
  latest = lambda: {'params': state.params, **state.extra}
  expected = jax.device_get(latest())
  for step in range(1, 31):
    state, _ = trainer.step(state, _batch(step), _CONTEXT)
    # the limit 0.5 is reached at step 10
    decay = min(ema_decay, step / (step + 10))
    expected = jax.tree.map(
      lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new), expected, latest()
    )
  # statistics, too: those of the latest parameters would not fit the averaged ones
  assert state.sampling_variables == {'params': state.ema, **state.ema_extra}
  _assert_close(state.sampling_variables, expected, 1e-5)


def test_without_a_decay_the_average_is_the_latest():
  trainer = _trainer(ema_decay=0.0)
  state = trainer.init(0)
  for step in range(3):
    state, _ = trainer.step(state, _batch(step), _CONTEXT)
    np.testing.assert_array_equal(state.sampling_variables['params']['mean'], state.params['mean'])
    np.testing.assert_array_equal(
      state.sampling_variables['statistics']['mean'], state.extra['statistics']['mean']
    )


def test_runs_that_differ_in_seed_share_a_compilation_but_not_a_result():
  make = lambda: _trainer(size=4)
  assert make() is make() and make() is not _trainer(_ADAFACTOR, size=4)
  means = []
  for seed in (0, 0, 1):
    state = make().init(seed)
    state, _ = make().step(state, _batch(0, 4), _CONTEXT)
    means.append(np.asarray(state.params['mean']))
  assert _TRACES.count(_NoisyMean(4)) == 1
  np.testing.assert_array_equal(means[0], means[1])
  assert np.abs(means[0] - means[2]).min() > 1e-3


def test_trained_weights_are_a_start_and_are_not_used_up():
  trainer = make_trainer(_NoisyMean(has_statistics=False), _ADAM, 30, 0.0, make_mesh())
  trained = trainer.init(0).params
  values = np.asarray(trained['mean'])
  state = trainer.start_from({'params': trained}, 5)
  assert int(state.step) == 0 and int(state.seed) == 5
  np.testing.assert_array_equal(state.params['mean'], values)
  np.testing.assert_array_equal(state.ema['mean'], values)
  state, _ = trainer.step(state, _batch(0), _CONTEXT)
  # the buffers of a state are donated to the step
  np.testing.assert_array_equal(trained['mean'], values)
  assert np.abs(state.params['mean'] - values).min() > 1e-3
