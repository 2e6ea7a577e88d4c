import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from imagenet_synth.core.errors import InputError
from imagenet_synth.models import resnet
from tests.fixtures import reference

_TINY = functools.partial(resnet.ResNet, stage_sizes=(1, 1), num_classes=3, block='basic', width=8,
                          stem='small')


def _init(model, size=8, batch_size=2):
  x = jnp.zeros((batch_size, size, size, 3))
  return nn.unbox(jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x))


def _eval(model, variables, x):
  return jax.jit(functools.partial(model.apply, train=False))(variables, x)


def _from_torch(tensors):
  """A PyTorch state dict -> our variables."""
  leaves = {'running_mean': ('batch_stats', 'mean'), 'running_var': ('batch_stats', 'var'),
            'bias': ('params', 'bias')}
  variables = {}
  for name, tensor in tensors.items():
    module, leaf = name.rsplit('.', 1)
    scale = 'kernel' if tensor.ndim > 1 else 'scale'
    collection, leaf = leaves.get(leaf, ('params', scale))
    path = module.split('.')
    if path[0].startswith('layer'):
      block = f'stage_{int(path[0][-1]) - 1}_block_{path[1]}'
      layer = {'downsample.0': 'shortcut', 'downsample.1': 'shortcut_norm'}.get('.'.join(path[2:]))
      path = [block, layer or re.sub(r'bn(\d)', r'norm_\1', path[2]).replace('conv', 'conv_')]
    else:
      path = [{'conv1': 'stem', 'bn1': 'stem_norm', 'fc': 'head'}[module]]
    axes = (2, 3, 1, 0) if tensor.ndim == 4 else None
    variables[(collection, *path, leaf)] = tensor.transpose(axes)
  return traverse_util.unflatten_dict(variables)


@pytest.mark.parametrize('make, count', [
  (resnet.ResNet50, 25_557_032),
  (resnet.ResNet101, 44_549_160),
  (resnet.ResNet152, 60_192_808),
])
def test_parameter_count_is_the_published_one(make, count):
  init = functools.partial(make(num_classes=1000).init, train=False)
  params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_resnet50_agrees_with_the_public_implementation():
  variables = _from_torch(reference.tensors('classifiers/resnet50'))
  expected = reference.outputs('classifiers/resnet50')
  outputs = _eval(resnet.ResNet50(num_classes=1000), variables, reference.images(64))
  assert reference.relative_error(outputs.features, expected['features']) < 1e-4
  assert reference.relative_error(outputs.logits, expected['logits']) < 1e-4


@pytest.mark.parametrize('stem_stride, size', [(1, 8), (2, 16)])
def test_a_gradient_step_decreases_the_loss(stem_stride, size):
  model = _TINY(stem_stride=stem_stride)
  variables = _init(model, size)
  x = jax.random.uniform(jax.random.key(1), (6, size, size, 3), minval=-1, maxval=1)
  labels = jnp.arange(6) % 3

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss_and_gradient(params):
    outputs, updates = model.apply({**variables, 'params': params}, x, train=True,
                                   mutable=['batch_stats'])
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
    return losses.mean(), updates

  (before, updates), gradient = loss_and_gradient(variables['params'])
  params = jax.tree.map(lambda p, g: p - 0.1 * g, variables['params'], gradient)
  (after, _), _ = loss_and_gradient(params)
  assert after < before
  mean = updates['batch_stats']['stem_norm']['mean']
  stem = jax.lax.conv(x.transpose(0, 3, 1, 2),
                      variables['params']['stem']['kernel'].transpose(3, 2, 0, 1),
                      (stem_stride, stem_stride), ((1, 1), (1, 1)))
  np.testing.assert_allclose(mean, 0.1 * stem.mean((0, 2, 3)), atol=1e-6)


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
  with pytest.raises(InputError, match=f"resnet {field} 'wide' is none of"):
    _init(_TINY(**{field: 'wide'}))


def test_parameters_carry_logical_axes():
  variables = jax.eval_shape(functools.partial(_TINY().init, train=False), jax.random.key(0),
                             jnp.zeros((1, 8, 8, 3)))
  specs = nn.get_partition_spec(variables)['params']
  assert tuple(specs['stem']['kernel']) == (None, None, 'conv_in', 'conv_out')
  assert tuple(specs['head']['kernel']) == ('embed', 'classes')
