import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import deepfloyd
from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train.optim import Optimizer, learning_rate, make_optimizer


def _rates(config, num_steps, steps):
  rate = learning_rate(config, num_steps)
  return [float(rate(step)) for step in steps]


def test_constant_after_a_linear_warm_up():
  config = Optimizer('adam', 0.4, warmup_steps=10)
  np.testing.assert_allclose(
    _rates(config, 100, [0, 1, 5, 9, 10, 11, 99]), [0, 0.04, 0.2, 0.36, 0.4, 0.4, 0.4], rtol=1e-6
  )
  np.testing.assert_allclose(_rates(Optimizer('adam', 0.4), 100, [0, 50, 99]), 0.4)


@pytest.mark.parametrize('schedule', ['constant', 'cosine', 'step'])
def test_a_warm_up_can_be_a_fraction_of_the_run(schedule):
  # 5 epochs of 90, and of 91 steps the nearest
  for num_steps, warmup_steps in ((90, 5), (900, 50), (91, 5)):
    rates = [
      _rates(Optimizer('momentum', 0.4, schedule, **warmup), num_steps, range(num_steps))
      for warmup in (dict(warmup=5 / 90), dict(warmup_steps=warmup_steps))
    ]
    assert rates[0] == rates[1] and rates[0][0] == 0 and rates[0][warmup_steps] == np.float32(0.4)
  with pytest.raises(InputError, match='optimizer.warmup is 0.1 and warmup_steps is 5; leave one out'):
    section = {'name': 'adam', 'learning_rate': 0.1, 'warmup_steps': 5, 'warmup': 0.1}
    build(Optimizer, section, 'optimizer')


def test_cosine_from_the_peak_at_the_end_of_the_warm_up_to_zero():
  config = Optimizer('adam', 1e-4, 'cosine', warmup_steps=20)
  np.testing.assert_allclose(
    _rates(config, 120, [0, 10, 20, 45, 70, 120]),
    [0, 0.5e-4, 1e-4, 0.5e-4 * (1 + np.cos(np.pi / 4)), 0.5e-4, 0],
    rtol=1e-5,
    atol=1e-11,
  )
  np.testing.assert_allclose(
    _rates(Optimizer('adam', 1.0, 'cosine'), 100, [0, 50, 100]), [1, 0.5, 0], atol=1e-6
  )
  ends_at = Optimizer('adam', 1.0, 'cosine', end_learning_rate=0.2)
  np.testing.assert_allclose(_rates(ends_at, 100, [0, 50, 100]), [1, 0.6, 0.2], atol=1e-6)


@pytest.mark.parametrize(
  'section, message',
  [
    (dict(schedule='cosine', end_learning_rate=2.0), 'end_learning_rate is 2.0, more than learning_rate 1.0'),
    (dict(end_learning_rate=0.1), "end_learning_rate is 0.1, but schedule is not 'cosine'"),
  ],
)
def test_an_end_that_cannot_be_is_refused(section, message):
  with pytest.raises(InputError, match=message):
    build(Optimizer, dict(name='adam', learning_rate=1.0, **section), 'optimizer')


@pytest.mark.parametrize('warmup', [0, 5])
def test_step_schedule_drops_tenfold_at_its_steps(warmup):
  # the CAS protocol: 90 epochs, a tenth at 30, 60 and 80
  config = Optimizer('momentum', 0.4, 'step', warmup_steps=warmup)
  rates = _rates(config, 90, [5, 29, 30, 59, 60, 79, 80, 89])
  np.testing.assert_allclose(rates, [0.4, 0.4, 0.04, 0.04, 4e-3, 4e-3, 4e-4, 4e-4], rtol=1e-5)


def test_step_schedule_drops_where_told():
  config = Optimizer('momentum', 1.0, 'step', drops=(0.5, 0.75))
  np.testing.assert_allclose(_rates(config, 182, [90, 91, 135, 136]), [1, 0.1, 0.1, 0.01], rtol=1e-6)
  np.testing.assert_allclose(_rates(config, 200, [99, 100, 149, 150]), [1, 0.1, 0.1, 0.01], rtol=1e-6)


def _steps(config, gradients, num_steps=100):
  """Parameters that start at 1, after one step with each of the gradients."""
  optimizer = make_optimizer(config, num_steps)
  params = jnp.ones_like(gradients[0])
  state = optimizer.init(params)
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return np.asarray(params)


def test_adam_moves_by_the_learning_rate_at_first():
  out = _steps(Optimizer('adam', 0.01), [jnp.array([1e-3, -50.0])])
  np.testing.assert_allclose(out, [0.99, 1.01], rtol=1e-5)


def test_adam_is_that_of_the_paper():
  gradients = np.random.default_rng(0).normal(size=(5, 3))
  m = v = np.zeros(3)
  expected = np.ones(3)
  for i, g in enumerate(gradients, 1):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    expected -= 0.01 * (m / (1 - 0.9**i)) / (np.sqrt(v / (1 - 0.999**i)) + 1e-8)
  out = _steps(Optimizer('adam', 0.01), list(jnp.asarray(gradients, jnp.float32)))
  np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_adamw_decays_weights_at_the_learning_rate():
  out = _steps(Optimizer('adamw', 0.01, weight_decay=0.3), [jnp.zeros(2)])
  np.testing.assert_allclose(out, 1 - 0.01 * 0.3, rtol=1e-6)


_NETWORKS = [
  ResNet(stage_sizes=(1, 1), num_classes=3, block='basic', width=4, stem='small'),
  ViT(patch_size=4, width=4, depth=1, num_heads=1, num_classes=3),
]


@pytest.mark.parametrize('network', _NETWORKS, ids=['resnet', 'vit'])
@pytest.mark.parametrize('name, decay', [('adamw', 0.99), ('momentum', 1 - 1.9 * 0.01), ('adafactor', 0.9)])
def test_decay_can_be_of_kernels_alone(network, name, decay):
  init = lambda key: network.init(key, jnp.zeros((1, 8, 8, 3)), train=False)
  params = nn.unbox(jax.eval_shape(init, jax.random.key(0)))['params']
  params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
  spared = set()
  for decay_all in (False, True):
    config = Optimizer(name, 0.1, weight_decay=0.1, decay_all=decay_all)
    optimizer = make_optimizer(config, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
      of_kernel = jax.tree_util.keystr(path).endswith("['kernel']")
      np.testing.assert_allclose(leaf, decay if decay_all or of_kernel else 1, rtol=1e-6)
      if not decay_all and not of_kernel:
        spared.add(path[-1].key)
  assert spared == (
    {'scale', 'bias'} if isinstance(network, ResNet) else {'scale', 'bias', 'class_token', 'positions'}
  )


@pytest.mark.parametrize('nesterov', [True, False])
def test_momentum_is_nesterovs_or_not_with_decay_in_the_gradient(nesterov):
  gradients = np.random.default_rng(0).normal(size=(4, 3))
  expected, velocity = np.ones(3), np.zeros(3)
  for g in gradients:
    g = g + 1e-2 * expected
    velocity = 0.9 * velocity + g
    expected = expected - 0.1 * (g + 0.9 * velocity if nesterov else velocity)
  config = Optimizer('momentum', 0.1, weight_decay=1e-2, nesterov=nesterov)
  out = _steps(config, list(jnp.asarray(gradients, jnp.float32)))
  np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize('scale, expected', [(0.1, 0.1), (1.0, 1.0), (100.0, 1.0)])
def test_gradients_are_clipped_by_their_global_norm(scale, expected):
  config = Optimizer('momentum', 1.0, clip_norm=1.0)
  optimizer = make_optimizer(config, 10)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  gradients = {'a': jnp.array([0.6 * scale]), 'b': jnp.array([-0.8 * scale])}
  updates, _ = optimizer.update(gradients, optimizer.init(params), params)
  # the first step of Nesterov's momentum is 1.9 gradients
  np.testing.assert_allclose(updates['a'], -1.9 * 0.6 * expected, rtol=1e-5)
  np.testing.assert_allclose(updates['b'], 1.9 * 0.8 * expected, rtol=1e-5)


def test_without_a_clip_norm_gradients_are_whole():
  out = _steps(Optimizer('momentum', 1.0), [jnp.array([1000.0])])
  np.testing.assert_allclose(out, 1 - 1900, rtol=1e-6)


@pytest.mark.parametrize('name', ['adafactor', 'adam', 'adamw', 'momentum'])
def test_finds_the_minimum_of_a_square(name):
  config = Optimizer(name, 0.03, 'cosine', warmup_steps=5, clip_norm=1.0)
  optimizer = make_optimizer(config, 300)
  target = jnp.linspace(0.5, 1.5, 12).reshape(3, 4)
  loss = lambda params: jnp.mean(jnp.square(params - target))

  @jax.jit
  def step(_, carry):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  params = jnp.ones((3, 4))
  params, _ = jax.lax.fori_loop(0, 300, step, (params, optimizer.init(params)))
  assert loss(params) < 0.05 * loss(jnp.ones((3, 4)))


@pytest.mark.parametrize('name', ['adafactor', 'adam', 'adamw', 'momentum'])
def test_the_first_step_of_a_warm_up_moves_nothing(name):
  out = _steps(Optimizer(name, 0.1, warmup_steps=10), [jnp.ones(3)])
  np.testing.assert_array_equal(out, 1)


def _loss_of_fine_tuning(optimizers, num_steps):
  """The loss of a small network of DeepFloyd IF before, and after that many steps with each optimizer."""
  small = dict(
    channels=(32,),
    layers_per_block=(1,),
    attention=(True,),
    cross_attention_size=32,
    head_size=8,
    pool_heads=4,
    dtype='float32',
    remat=False,
  )
  section = dict(deepfloyd.STAGE_1, size=8, network=dict(deepfloyd.STAGE_1['network'], **small))
  objective = DiffusionObjective(build(Stage, json.loads(json.dumps(section)), 'stage'), text_size=16)
  rng = np.random.default_rng(0)
  # a colour for each of four prompts
  prompt = np.arange(8) % 4
  image = np.array([40, 90, 160, 220], np.uint8)[prompt][:, None, None, None] * np.ones((8, 8, 3), np.uint8)
  text = jnp.asarray(rng.normal(size=(4, 5, 16)), jnp.float32)[prompt]

  @jax.jit
  @jax.value_and_grad
  def loss(params, key):
    context = {'null': jnp.zeros((5, 16))}
    return objective.loss({'params': params}, dict(image=image, text=text), context, key)[0]

  start = nn.unbox(objective.init(jax.random.key(0)))['params']
  judge = lambda params: np.mean([loss(params, jax.random.key(1000 + i))[0] for i in range(8)])
  losses = [judge(start)]
  for config in optimizers:
    optimizer, params = make_optimizer(config, num_steps), start
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for i in range(num_steps):
      updates, state = update(loss(params, jax.random.key(i))[1], state, params)
      params = optax.apply_updates(params, updates)
    losses.append(judge(params))
  return losses


@pytest.mark.slow
def test_the_base_of_deepfloyd_if_learns_with_adam_and_not_with_relative_adafactor():
  section = dict(deepfloyd.all_jobs()['finetune_base']['optimizer'], warmup_steps=0, schedule='constant')
  adam = build(Optimizer, section, 'optimizer')
  assert adam.learning_rate == 1e-5
  before, after, with_adafactor = _loss_of_fine_tuning([adam, Optimizer('adafactor', 1e-5)], num_steps=40)
  assert before - after > 0.005
  assert abs(before - with_adafactor) < (before - after) / 50
