import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.models import vit
from tests.fixtures import reference

_TINY = functools.partial(vit.ViT, patch_size=4, width=16, depth=2, num_heads=2, num_classes=3)


def _init(model, size=8):
  x = jnp.zeros((1, size, size, 3))
  return nn.unbox(jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x))


def _eval(model, variables, x):
  return jax.jit(functools.partial(model.apply, train=False))(variables, x)


@pytest.mark.parametrize(
  'make, size, count',
  [
    (vit.ViT_S16, 224, 22_050_664),
    (vit.ViT_B16, 224, 86_567_656),
    (vit.ViT_B16, 384, 86_859_496),
    (vit.ViT_L16, 224, 304_326_632),
  ],
)
def test_parameter_count_is_the_published_one(make, size, count):
  init = functools.partial(make(num_classes=1000).init, train=False)
  params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, size, size, 3)))['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_a_gradient_step_decreases_the_loss():
  model = _TINY(drop_path_rate=0.2)
  params = _init(model)['params']
  x = jax.random.uniform(jax.random.key(1), (6, 8, 8, 3), minval=-1, maxval=1)
  labels = jnp.arange(6) % 3

  @jax.jit
  @jax.value_and_grad
  def loss_and_gradient(params):
    outputs = model.apply({'params': params}, x, train=True, rngs={'dropout': jax.random.key(2)})
    return optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels).mean()

  before, gradient = loss_and_gradient(params)
  after, _ = loss_and_gradient(jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient))
  assert after < before


def test_bfloat16_keeps_parameters_and_outputs_in_float32():
  x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
  variables = _init(_TINY())
  outputs = {dtype: _eval(_TINY(dtype=dtype), variables, x) for dtype in ('float32', 'bfloat16')}
  half = jax.eval_shape(lambda: _init(_TINY(dtype='bfloat16')))
  assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype('float32')}
  assert outputs['bfloat16'].logits.dtype == outputs['bfloat16'].features.dtype == jnp.float32
  error = reference.relative_error(outputs['bfloat16'].features, outputs['float32'].features)
  assert 1e-5 < error < 2e-2


def test_drop_path_is_off_in_eval():
  x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  variables = _init(_TINY())
  plain = _eval(_TINY(), variables, x)
  dropping = _eval(_TINY(drop_path_rate=0.5), variables, x)
  np.testing.assert_array_equal(plain.logits, dropping.logits)


def test_drop_path_drops_or_scales_whole_branches_of_an_image():
  block = vit.Block(num_heads=2, mlp_ratio=1, drop_path_rate=0.5, dtype='float32')
  image = jax.random.normal(jax.random.key(1), (1, 3, 8))
  x = jnp.tile(image, (64, 1, 1))
  variables = nn.unbox(block.init(jax.random.key(0), image, train=False))
  # With the MLP silent, what is left is the attention branch: absent, or twice itself.
  variables['params']['mlp_out'] = jax.tree.map(jnp.zeros_like, variables['params']['mlp_out'])
  branch = block.apply(variables, image, train=False) - image
  dropped = block.apply(variables, x, train=True, rngs={'dropout': jax.random.key(3)}) - x
  kept = jnp.abs(dropped).max(axis=(1, 2)) > 0
  assert 16 < kept.sum() < 48
  np.testing.assert_allclose(dropped[kept], jnp.tile(2 * branch, (kept.sum(), 1, 1)), atol=1e-6)


def test_drop_path_rises_from_the_first_block_to_the_last():
  model = _TINY(depth=3, drop_path_rate=0.2)
  rates = []

  def record(next_fn, args, kwargs, context):
    if isinstance(context.module, vit.Block) and context.method_name == '__call__':
      rates.append(context.module.drop_path_rate)
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  np.testing.assert_allclose(rates, [0, 0.1, 0.2])


def test_image_size_must_divide_into_patches():
  with pytest.raises(InputError, match='10 x 10 pixels does not divide into patches of 4'):
    _init(_TINY(), size=10)


def test_width_must_divide_into_heads():
  with pytest.raises(InputError, match='num_heads is 3, must divide the width 16'):
    _TINY(num_heads=3).validate()


def test_parameters_carry_logical_axes():
  variables = jax.eval_shape(
    functools.partial(_TINY().init, train=False), jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  )
  specs = nn.get_partition_spec(variables)['params']
  assert tuple(specs['block_0']['attention']['query']['kernel']) == ('embed', 'heads')
  assert tuple(specs['block_0']['attention']['out']['kernel']) == ('heads', 'embed')
  assert tuple(specs['block_0']['mlp_in']['kernel']) == ('embed', 'mlp')
  assert tuple(specs['block_0']['mlp_out']['kernel']) == ('mlp', 'embed')
  assert tuple(specs['head']['kernel']) == ('embed', 'classes')


def test_waves_tell_rows_and_columns_at_these_frequencies():
  positions = vit.waves(3, 5, 16)
  assert positions.shape == (15, 16) and positions.dtype == jnp.float32
  row, column, frequencies = 2, 3, 10_000.0 ** -(np.arange(4) / 3)
  waves = [of(at * frequencies) for at in (column, row) for of in (np.sin, np.cos)]
  np.testing.assert_allclose(positions[row * 5 + column], np.concatenate(waves), atol=1e-6)


def test_the_plain_baseline_has_neither_class_token_nor_learned_positions():
  model = _TINY(pooling='average', positions='waves')
  variables = _init(model)
  assert not {'class_token', 'positions'} & set(variables['params'])
  image = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
  outputs = _eval(model, variables, image)
  # the mean does not change if patches change their places, but their positions do
  moved = jnp.roll(image, 4, axis=1)
  assert np.abs(outputs.features - _eval(model, variables, moved).features).max() > 1e-3
  assert outputs.features.shape == (1, 16) and outputs.logits.shape == (1, 3)
  # as are images of another size, whose positions are made, not resized
  assert _eval(model, variables, jnp.zeros((1, 12, 12, 3))).logits.shape == (1, 3)


def test_without_positions_the_mean_over_patches_heeds_no_order():
  model = _TINY(pooling='average')
  variables = _init(model)
  variables['params']['positions'] *= 0
  image = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
  outputs, moved = (_eval(model, variables, x).features for x in (image, jnp.roll(image, 4, axis=2)))
  np.testing.assert_allclose(outputs, moved, atol=1e-5)


@pytest.mark.parametrize('width', [4, 18])
def test_waves_must_fit_the_width(width):
  with pytest.raises(InputError, match=f'width is {width}, must be a multiple of 4 from 8 on'):
    _TINY(width=width, positions='waves').validate()


def test_positions_of_another_size_without_a_class_token():
  positions = jax.random.normal(jax.random.key(0), (1, 1 + 4 * 4, 6))
  larger = vit.resize_positions(positions, 6 * 6)
  np.testing.assert_allclose(vit.resize_positions(positions[:, 1:], 6 * 6), larger[:, 1:], atol=1e-6)


def test_positions_of_another_size():
  positions = jax.random.normal(jax.random.key(0), (1, 1 + 14 * 14, 6))
  np.testing.assert_array_equal(vit.resize_positions(positions, 14 * 14), positions)
  larger = vit.resize_positions(positions, 24 * 24)
  assert larger.shape == (1, 1 + 24 * 24, 6)
  np.testing.assert_array_equal(larger[:, 0], positions[:, 0])
  # what is linear in the place stays so, away from the border
  rows, columns = np.meshgrid(np.arange(14.0), np.arange(14.0), indexing='ij')
  plane = jnp.asarray(rows + 3 * columns, jnp.float32).reshape(1, -1, 1)
  grid = vit.resize_positions(jnp.concatenate([jnp.zeros((1, 1, 1)), plane], axis=1), 24 * 24)[0, 1:, 0]
  places = (np.arange(24) + 0.5) * 14 / 24 - 0.5
  inner = slice(4, 20)
  np.testing.assert_allclose(
    grid.reshape(24, 24)[inner, inner], (places[:, None] + 3 * places[None])[inner, inner], atol=1e-4
  )


def test_rematerialisation_changes_no_output_and_no_gradient():
  model = _TINY(drop_path_rate=0.5)
  params, x = _init(model), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

  @functools.partial(jax.jit, static_argnums=0)
  def loss_and_gradient(remat, params):
    def loss(params):
      outputs = model.clone(remat=remat).apply(params, x, train=True, rngs={'dropout': jax.random.key(2)})
      return jnp.sum(jnp.square(outputs.features)) + jnp.sum(jnp.square(outputs.logits))

    return jax.value_and_grad(loss)(params)

  kept, recomputed = (loss_and_gradient(remat, params) for remat in (False, True))
  for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max()) + 1e-6)
  assert 'remat' in str(jax.make_jaxpr(functools.partial(loss_and_gradient, True))(params))
  jax.tree.map(np.testing.assert_array_equal, _init(model.clone(remat=True)), params)
