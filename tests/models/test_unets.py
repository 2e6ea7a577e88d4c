"""The base and the super-resolution U-Nets, tiny."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.layers import Attention, AttentionPool, ResBlock, noise_embedding
from imagenet_synth.models.unet import UNet

_TEXT_SHAPE = (5, 6)
_UNET = functools.partial(
  UNet, channels=8, channel_multiples=(1, 2), num_res_blocks=1, attention_sizes=(4,), head_size=4
)
_EFFICIENT = functools.partial(
  EfficientUNet,
  channels=(8, 16),
  num_res_blocks=(1, 2),
  self_attention=(False, True),
  text_attention=(False, True),
  num_heads=2,
)
_NETWORKS = {'unet': _UNET, 'efficient': _EFFICIENT}
_BOTH = pytest.mark.parametrize('name', sorted(_NETWORKS))
# of what takes the longest; the other one is among the slow tests
_ONE_SOON = pytest.mark.parametrize('name', ['efficient', pytest.param('unet', marks=pytest.mark.slow)])


def _inputs(sr, batch_size=2, size=8, channels=3):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  inputs = {
    'x_t': normal(batch_size, size, size, channels),
    'logsnr': normal(batch_size),
    'text': normal(batch_size, *_TEXT_SHAPE),
  }
  if sr:
    inputs |= {'low_res': normal(*inputs['x_t'].shape), 'aug_logsnr': normal(batch_size)}
  return inputs


@functools.cache
def _shapes(name, sr):
  """Boxed parameters as shapes."""
  return jax.eval_shape(_NETWORKS[name]().init, jax.random.key(0), **_inputs(sr))


@functools.cache
def _params(name):
  """Parameters of an SR network without zeros, as after training."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    value = rng.normal(size=leaf.shape)
    if path[-1].key == 'kernel':
      return jnp.asarray(value / np.sqrt(np.prod(leaf.shape[:-1])), jnp.float32)
    return jnp.asarray(0.1 * value + (path[-1].key == 'scale'), jnp.float32)

  return jax.tree.map_with_path(draw, nn.unbox(_shapes(name, True)))


@functools.cache
def _apply(name, dtype='float32'):
  return jax.jit(_NETWORKS[name](dtype=dtype).apply)


@_ONE_SOON
def test_starts_at_exactly_zero_with_float32_parameters(name):
  def start(key, **inputs):
    params = nn.unbox(model.init(key, **inputs))
    return params, model.apply(params, **inputs)

  model, inputs = _NETWORKS[name](dtype='bfloat16'), _inputs(True)
  params, out = jax.jit(start)(jax.random.key(0, impl='rbg'), **inputs)
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  assert out.shape == inputs['x_t'].shape and out.dtype == jnp.float32
  np.testing.assert_array_equal(out, 0)


@_ONE_SOON
def test_bfloat16_is_near_float32(name):
  exact, out = (_apply(name, dtype)(_params(name), **_inputs(True)) for dtype in ('float32', 'bfloat16'))
  assert out.dtype == exact.dtype == jnp.float32
  error = np.sqrt(np.mean(np.square(out - exact)) / np.mean(np.square(exact)))
  assert 1e-5 < error < 0.05


@pytest.mark.parametrize('sr', [False, True])
@_BOTH
def test_every_parameter_names_its_axes(name, sr):
  is_boxed = lambda x: isinstance(x, nn.LogicallyPartitioned)
  for path, leaf in jax.tree.leaves_with_path(_shapes(name, sr), is_leaf=is_boxed):
    assert is_boxed(leaf), jax.tree_util.keystr(path)
    assert len(leaf.names) == leaf.value.ndim, jax.tree_util.keystr(path)


@_ONE_SOON
def test_padding_of_the_text_changes_nothing(name):
  inputs, params = _inputs(True), _params(name)
  padded = {**inputs, 'text': jnp.pad(inputs['text'], ((0, 0), (0, 3), (0, 0)))}
  before, after = (np.asarray(_apply(name)(params, **x)) for x in (inputs, padded))
  np.testing.assert_allclose(after, before, atol=1e-5)
  # nothing but padding is no text, and no division by zero, forward or back
  empty = {**inputs, 'text': jnp.zeros_like(inputs['text'])}
  gradients = jax.grad(lambda params: _apply(name)(params, **empty).sum())(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize('key', ['x_t', 'logsnr', 'text', 'low_res', 'aug_logsnr'])
@_BOTH
def test_every_input_matters_to_its_own_image_alone(name, key):
  inputs, params = _inputs(True), _params(name)
  changed = {**inputs, key: inputs[key].at[1].add(1.0)}
  if key == 'text':
    # LayerNorm takes a constant away
    changed[key] = inputs[key].at[1].set(inputs[key][1, :, ::-1])
  before, after = (np.asarray(_apply(name)(params, **x)) for x in (inputs, changed))
  np.testing.assert_allclose(after[0], before[0], atol=1e-5)
  assert np.abs(after[1] - before[1]).max() > 1e-3


@_BOTH
def test_no_text_differs_from_text_and_is_finite(name):
  inputs, params = _inputs(True), _params(name)
  out = _apply(name)(params, **{**inputs, 'text': jnp.zeros_like(inputs['text'])})
  assert np.all(np.isfinite(out))
  assert np.abs(out - _apply(name)(params, **inputs)).max() > 1e-3


@pytest.mark.parametrize('sr', [False, True])
@_BOTH
def test_runs_at_another_size_with_the_same_parameters(name, sr):
  # 256->1024 is trained on crops
  inputs = _inputs(sr, batch_size=1, size=16, channels=3)
  out = jax.eval_shape(_NETWORKS[name]().apply, nn.unbox(_shapes(name, sr)), **inputs)
  assert out.shape == (1, 16, 16, 3) and out.dtype == jnp.float32


@_ONE_SOON
def test_gradients_reach_every_parameter(name):
  inputs = _inputs(True)
  loss = lambda params: jnp.mean(jnp.square(_NETWORKS[name]().apply(params, **inputs)))
  gradients = jax.jit(jax.grad(loss))(_params(name))
  for path, gradient in traverse_util.flatten_dict(gradients).items():
    assert np.all(np.isfinite(gradient)), path
    # a bias before a norm of one channel a group, or of the only keys of a softmax, has none
    assert path[-1] == 'bias' or np.abs(gradient).max() > 1e-6, path


def test_dropout_acts_in_training_alone():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4)), jnp.float32)
  vector = jnp.ones((2, 5))
  shapes = jax.eval_shape(lambda: ResBlock(4).init(jax.random.key(0), x, vector, False))
  params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), nn.unbox(shapes))
  block = ResBlock(4, dropout=0.5)
  trained = [
    block.apply(params, x, vector, True, rngs={'dropout': jax.random.key(seed)}) for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(
    block.apply(params, x, vector, False), ResBlock(4).apply(params, x, vector, True)
  )
  np.testing.assert_array_equal(trained[0], trained[1])
  assert np.abs(trained[0] - trained[2]).max() > 1e-3


def _num_params(tree):
  return sum(x.size for x in jax.tree.leaves(nn.unbox(tree)))


def _conv(features_in, features_out, kernel_size=3):
  return kernel_size**2 * features_in * features_out + features_out


def _dense(features_in, features_out):
  return features_in * features_out + features_out


def _res_block(features_in, features, vector):
  shortcut = _conv(features_in, features, 1) if features_in != features else 0
  return (
    2 * features_in
    + _conv(features_in, features)
    + _dense(vector, 2 * features)
    + 2 * features
    + _conv(features, features)
    + shortcut
  )


def _attention(features, hidden, text):
  return (
    2 * features
    + 2 * text
    + 3 * _dense(features, hidden)
    + 2 * _dense(text, hidden)
    + (_dense(hidden, features))
  )


def _conditioning(vector, text, num_levels):
  # one head of 64 pools the text
  pool = 2 * text + 3 * _dense(text, 64) + _dense(64, vector)
  return num_levels * 2 * _dense(vector, vector) + pool


def test_unet_has_the_parameters_counted_by_hand():
  c, v, text = 8, 32, _TEXT_SHAPE[1]
  block, attention = functools.partial(_res_block, vector=v), _attention(2 * c, 2 * c, text)
  down = block(c, c) + block(c, c) + block(c, 2 * c) + attention
  middle = 2 * block(2 * c, 2 * c) + attention
  # skips, last first: 2c, c (after the downsampling block), then c, c
  up_1 = block(4 * c, 2 * c) + block(3 * c, 2 * c) + 2 * attention + block(2 * c, 2 * c)
  up_0 = block(3 * c, c) + block(2 * c, c)
  expected = _conditioning(v, text, 1) + _conv(3, c) + down + middle + up_1 + up_0 + 2 * c + _conv(c, 3)
  assert _num_params(_shapes('unet', False)) == expected


def test_efficient_unet_has_the_parameters_counted_by_hand():
  c, v, text = 8, 32, _TEXT_SHAPE[1]
  block, attention = functools.partial(_res_block, vector=v), _attention(2 * c, 4 * c, text)
  down = _conv(c, c) + block(c, c) + _conv(c, 2 * c) + 2 * block(2 * c, 2 * c) + attention
  up_1 = block(4 * c, 2 * c) + block(2 * c, 2 * c) + attention + _conv(2 * c, 4 * c)
  up_0 = block(2 * c, c) + _conv(c, 4 * c)
  expected = _conditioning(v, text, 2) + _conv(6, c) + down + up_1 + up_0 + 4 * c + _conv(2 * c, 3)
  assert _num_params(_shapes('efficient', True)) == expected


def test_noise_embedding_tells_levels_apart_and_saturates():
  embedding = np.asarray(noise_embedding(jnp.array([-30.0, -20.0, -1.0, 0.0, 1.0, 20.0, 25.0]), 64))
  assert embedding.shape == (7, 64)
  np.testing.assert_array_equal(embedding[0], embedding[1])
  np.testing.assert_array_equal(embedding[5], embedding[6])
  distinct = embedding[1:6]
  distances = np.linalg.norm(distinct[:, None] - distinct[None], axis=-1)
  assert distances[~np.eye(5, dtype=bool)].min() > 1
  # logsnr 0 is the angle pi/4, position 500, at frequency 1
  np.testing.assert_allclose(embedding[3, [0, 32]], [np.cos(500), np.sin(500)], atol=1e-4)


def _layer(module, *args):
  """Output of a layer with parameters that are not zero."""
  shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *args))
  rng = np.random.default_rng(2)
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
  return jax.jit(module.apply)(params, *args)


@pytest.mark.parametrize('resample, size', [('none', 8), ('down', 4), ('up', 16)])
def test_a_new_res_block_is_its_resampled_shortcut(resample, size):
  x, vector = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 4)), jnp.float32), (jnp.ones((2, 5)))
  block = ResBlock(4, resample)

  @jax.jit
  def start(key):
    return block.apply(nn.unbox(block.init(key, x, vector, False)), x, vector, False)

  out = np.asarray(start(jax.random.key(0, impl='rbg')))
  assert out.shape == (2, size, size, 4)
  if resample == 'down':
    expected = np.asarray(x).reshape(2, 4, 2, 4, 2, 4).mean(axis=(2, 4))
  else:
    expected = np.asarray(x)
    if resample == 'up':
      expected = np.kron(expected, np.ones((1, 2, 2, 1)))
  np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize('self_attention', [False, True])
def test_attention_with_self_attention_off_sees_the_text_alone(self_attention):
  rng = np.random.default_rng(0)
  x, text = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(1, 2, 2, 4), (1, 3, 6)])
  module = Attention(num_heads=2, hidden_size=8, self_attention=self_attention)
  shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), x, text))
  draw = lambda path, leaf: jnp.asarray(
    rng.normal(size=leaf.shape)
    if path[-1].key == 'kernel'
    else jnp.full(leaf.shape, path[-1].key == 'scale'),
    jnp.float32,
  )
  params = jax.tree.map_with_path(draw, shapes)
  out = np.asarray(jax.jit(module.apply)(params, x, text) - x)
  expected = _attention64(
    params['params'], np.asarray(x, np.float64), np.asarray(text, np.float64), self_attention
  )
  np.testing.assert_allclose(out, expected, atol=1e-5)


def _attention64(params, x, text, self_attention):
  """Written again: group norm in one group of all 4 channels, 2 heads of 4."""

  def norm(y, axis):
    return (y - y.mean(axis, keepdims=True)) / np.sqrt(y.var(axis, keepdims=True) + 1e-6)

  pixels, tokens = norm(x, (1, 2, 3)).reshape(4, 4), norm(text, -1)[0]
  project = lambda y, name: y @ np.asarray(params[name]['kernel'], np.float64)
  keys, values = project(tokens, 'text_key'), project(tokens, 'text_value')
  if self_attention:
    keys = np.concatenate([project(pixels, 'key'), keys])
    values = np.concatenate([project(pixels, 'value'), values])
  query = project(pixels, 'query')
  out = []
  for head in (slice(0, 4), slice(4, 8)):
    weights = np.exp(query[:, head] @ keys[:, head].T / 2)
    out.append(weights / weights.sum(axis=1, keepdims=True) @ values[:, head])
  return (np.concatenate(out, axis=1) @ np.asarray(params['out']['kernel'], np.float64)).reshape(x.shape)


def test_pooling_does_not_depend_on_the_order_of_tokens():
  text = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6)), jnp.float32)
  module = AttentionPool(8, head_size=4)
  out = _layer(module, text)
  assert out.shape == (2, 8)
  np.testing.assert_allclose(_layer(module, text[:, ::-1]), out, atol=1e-5)


@_ONE_SOON
def test_rematerialisation_changes_no_output_and_no_gradient(name):
  inputs, params = _inputs(True), _params(name)

  @functools.partial(jax.jit, static_argnums=0)
  def loss_and_gradient(remat, params):
    def loss(params):
      return jnp.sum(jnp.square(_NETWORKS[name](remat=remat).apply(params, **inputs, train=True)))

    return jax.value_and_grad(loss)(params)

  kept, recomputed = (loss_and_gradient(remat, params) for remat in (False, True))
  for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(a).max()) + 1e-6)
  gradient = jax.make_jaxpr(functools.partial(loss_and_gradient, True))(params)
  assert 'remat' in str(gradient) or 'checkpoint' in str(gradient)
