import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.models import resnet
from tests.fixtures import reference

_TINY = functools.partial(
  resnet.ResNet, stage_sizes=(1, 1), num_classes=3, block='basic', width=8, stem='small'
)


def _init(model, size=8, batch_size=2):
  x = jnp.zeros((batch_size, size, size, 3))
  return nn.unbox(jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x))


def _eval(model, variables, x):
  return jax.jit(functools.partial(model.apply, train=False))(variables, x)


@pytest.mark.parametrize(
  'make, count',
  [
    (resnet.ResNet50, 25_557_032),
    (resnet.ResNet101, 44_549_160),
    (resnet.ResNet152, 60_192_808),
    (resnet.ResNetRS50, 35_691_912),
    (resnet.ResNetRS101, 63_618_696),
    (resnet.ResNetRS152, 86_621_576),
  ],
)
def test_parameter_count_is_the_published_one(make, count):
  init = functools.partial(make(num_classes=1000).init, train=False)
  params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize('stem_stride, size', [(1, 8), (2, 16)])
def test_a_gradient_step_decreases_the_loss(stem_stride, size):
  model = _TINY(stem_stride=stem_stride)
  variables = _init(model, size)
  x = jax.random.uniform(jax.random.key(1), (6, size, size, 3), minval=-1, maxval=1)
  labels = jnp.arange(6) % 3

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss_and_gradient(params):
    outputs, updates = model.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
    return losses.mean(), updates

  (before, updates), gradient = loss_and_gradient(variables['params'])
  params = jax.tree.map(lambda p, g: p - 0.1 * g, variables['params'], gradient)
  (after, _), _ = loss_and_gradient(params)
  assert after < before
  mean = updates['batch_stats']['stem_norm']['mean']
  stem = jax.lax.conv(
    x.transpose(0, 3, 1, 2),
    variables['params']['stem']['kernel'].transpose(3, 2, 0, 1),
    (stem_stride, stem_stride),
    ((1, 1), (1, 1)),
  )
  np.testing.assert_allclose(mean, 0.1 * stem.mean((0, 2, 3)), atol=1e-6)


def test_weights_start_as_those_of_pytorch_s_layers():
  """Uniform up to 1 / sqrt(fan-in): a 3x3 convolution of 64 channels to 1/24; the last layer; norms at 1."""
  model = resnet.ResNet((1, 1), 10, block='basic', width=64, stem='small', start='fan_in')
  params = traverse_util.flatten_dict(_init(model)['params'])
  for path, fan_in in ((('stage_0_block_0', 'conv_1', 'kernel'), 576), (('head', 'kernel'), 128)):
    bound = fan_in**-0.5
    assert 0.99 * bound < np.abs(params[path]).max() <= bound
    assert np.std(params[path]) == pytest.approx(bound / 3**0.5, rel=0.03)
  assert all((leaf == 1).all() for path, leaf in params.items() if path[-1] == 'scale')


@pytest.mark.parametrize('block, last_norm', [('basic', 'norm_2'), ('bottleneck', 'norm_3')])
def test_residual_branches_start_at_zero(block, last_norm):
  params = traverse_util.flatten_dict(_init(_TINY(block=block))['params'])
  scales = {path[:-1]: leaf for path, leaf in params.items() if path[-1] == 'scale'}
  zero_scales = {path for path, leaf in scales.items() if not leaf.any()}
  assert zero_scales == {('stage_0_block_0', last_norm), ('stage_1_block_0', last_norm)}


def test_bfloat16_keeps_parameters_and_outputs_in_float32():
  x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
  variables = _init(_TINY())
  # Nothing to see while the head is near zero.
  variables['params']['head']['kernel'] = jax.random.normal(jax.random.key(2), (16, 3))
  outputs = {dtype: _eval(_TINY(dtype=dtype), variables, x) for dtype in ('float32', 'bfloat16')}
  half = jax.eval_shape(lambda: _init(_TINY(dtype='bfloat16')))
  assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype('float32')}
  assert outputs['bfloat16'].logits.dtype == outputs['bfloat16'].features.dtype == jnp.float32
  error = reference.relative_error(outputs['bfloat16'].logits, outputs['float32'].logits)
  assert 1e-5 < error < 2e-2


def test_eval_images_do_not_see_each_other():
  model, x = _TINY(), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
  variables = _init(model)
  together = _eval(model, variables, x).features
  alone = _eval(model, variables, x[:1]).features
  np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('field', ['block', 'stem'])
def test_unknown_variants_are_named(field):
  with pytest.raises(InputError, match=f"model.{field} is 'wide', must be one of"):
    build(resnet.ResNet, {'stage_sizes': [1], 'num_classes': 2, field: 'wide'}, 'model')


def test_parameters_carry_logical_axes():
  variables = jax.eval_shape(
    functools.partial(_TINY().init, train=False), jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  )
  specs = nn.get_partition_spec(variables)['params']
  assert tuple(specs['stem']['kernel']) == (None, None, 'conv_in', 'conv_out')
  assert tuple(specs['head']['kernel']) == ('embed', 'classes')


def test_a_dropped_branch_leaves_the_input():
  """At rate 1 the last block is gone in training, and whole in evaluation."""
  two, one = (_TINY(stage_sizes=(num,), drop_path_rate=1.0) for num in (2, 1))
  variables = _init(two)
  # the branch starts at zero; give it something to drop
  variables['params']['stage_0_block_1']['norm_2']['scale'] = jnp.ones(8)
  x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
  part = jax.tree.map(
    lambda tree: {k: v for k, v in tree.items() if k != 'stage_0_block_1'},
    variables,
    is_leaf=lambda tree: 'stem' in tree or 'stem_norm' in tree,
  )
  apply = lambda model, variables: model.apply(
    variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(2)}
  )[0]
  np.testing.assert_allclose(apply(two, variables).features, apply(one, part).features, atol=1e-6)
  difference = _eval(two, variables, x).features - _eval(one, part, x).features
  assert np.abs(difference).max() > 1e-2


def test_dropout_is_of_the_features_in_training():
  model = _TINY(dropout_rate=0.5)
  variables = _init(model)
  variables['params']['head']['kernel'] = jnp.ones((16, 3))
  x = jax.random.normal(jax.random.key(1), (64, 8, 8, 3))
  outputs, _ = model.apply(
    variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(2)}
  )
  whole = outputs.features.sum(axis=1)
  assert np.abs(outputs.logits[:, 0] - whole).min() > 0
  # kept features are scaled up: the mean stays
  assert float(outputs.logits[:, 0].mean()) == pytest.approx(float(whole.mean()), rel=0.1)
  outputs = _eval(model, variables, x)
  np.testing.assert_allclose(outputs.logits[:, 0], outputs.features.sum(axis=1), rtol=1e-5)


def test_squeeze_and_excitation_gates_channels():
  plain, gated = _TINY(stage_sizes=(1,)), _TINY(stage_sizes=(1,), squeeze_ratio=0.25)
  variables = _init(gated)
  block = variables['params']['stage_0_block_0']
  assert block['squeeze']['kernel'].shape == (8, 2) and block['excite']['kernel'].shape == (2, 8)
  block['norm_2']['scale'] = jnp.ones(8)
  x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  # gates that are wide open: the network without them
  block['excite'] = {'kernel': jnp.zeros((2, 8)), 'bias': jnp.full(8, 100.0)}
  open_features = _eval(gated, variables, x).features
  np.testing.assert_allclose(open_features, _eval(plain, variables, x).features, rtol=1e-6)
  block['excite']['bias'] = -block['excite']['bias']
  assert np.abs(_eval(gated, variables, x).features - open_features).max() > 1e-2


def test_rematerialisation_changes_no_output_no_statistics_and_no_gradient():
  model = _TINY(squeeze_ratio=0.25, drop_path_rate=0.5, dropout_rate=0.1)
  variables, x = _init(model), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

  @functools.partial(jax.jit, static_argnums=0)
  def loss_and_gradient(remat, variables):
    def loss(params):
      outputs, updated = model.clone(remat=remat).apply(
        {**variables, 'params': params},
        x,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(2)},
      )
      return jnp.sum(jnp.square(outputs.features)) + jnp.sum(outputs.logits), updated

    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  kept, recomputed = (loss_and_gradient(remat, variables) for remat in (False, True))
  assert jax.tree.structure(kept) == jax.tree.structure(recomputed)
  for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max()) + 1e-6)
  assert 'remat' in str(jax.make_jaxpr(functools.partial(loss_and_gradient, True))(variables))
  assert jax.tree.structure(_init(model.clone(remat=True))) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, _init(model.clone(remat=True)), variables)


def test_swish_is_at_every_place_of_a_relu():
  relu, swish = _TINY(), _TINY(activation='swish')
  variables = _init(relu)
  x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  text = str(jax.make_jaxpr(functools.partial(swish.apply, train=False))(variables, x))
  assert 'logistic' in text and ' max ' not in text
  assert np.abs(_eval(swish, variables, x).features - _eval(relu, variables, x).features).max() > 1e-3
