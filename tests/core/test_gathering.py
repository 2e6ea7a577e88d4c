"""Parameters that are cut at rest, and whole where a module reads them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.devices import make_mesh, param_shardings
from imagenet_synth.core.gathering import Named, gathered_on_use, named


class _Linear(nn.Module):
  """x w + b; `w` is cut along both axes of the mesh, `b` along none."""

  dtype: str | None = None

  @nn.compact
  def __call__(self, x):
    w = self.param('w', named(nn.initializers.normal(), ('embed', 'mlp'), self.dtype), (8, 4))
    b = self.param('b', named(nn.initializers.zeros, (None, None)), (1, 4))
    return x @ w.astype(self.dtype or w.dtype) + b


def _cut(dtype, **axes):
  """The boxed variables of a `_Linear`, its parameters, and how they are laid out over a mesh."""
  boxed = jax.eval_shape(_Linear(dtype).init, jax.random.key(0), jnp.zeros((1, 8)))['params']
  params = nn.unbox(_Linear(dtype).init(jax.random.key(0), jnp.zeros((1, 8)))['params'])
  shardings = param_shardings(make_mesh(**axes), boxed)
  return boxed, jax.device_put(params, shardings), shardings


def test_a_parameter_is_named_by_its_axes_and_its_layer_s_dtype():
  boxed, _, _ = _cut('bfloat16')
  assert boxed['w'].names == ('embed', 'mlp') and boxed['w'].dtype == jnp.bfloat16
  # what is stored is not touched
  assert boxed['w'].value.dtype == jnp.float32
  assert isinstance(boxed['b'], Named) and boxed['b'].dtype is None


@pytest.mark.parametrize('axes', [{}, {'tensor': 2}])
def test_what_fsdp_does_not_cut_is_left_as_it_is(axes):
  boxed, params, shardings = _cut('bfloat16', **axes)
  assert gathered_on_use(params, shardings, boxed) == params


@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
@pytest.mark.parametrize('axes', [{'fsdp': 8}, {'fsdp': 2, 'tensor': 2}])
def test_a_module_reads_it_whole_along_fsdp_and_its_gradient_is_cut(axes, dtype):
  boxed, params, shardings = _cut(dtype, **axes)
  x = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)

  def read(params):
    return nn.unbox(gathered_on_use(params, shardings, boxed))['w']

  def loss(params):
    return _Linear(dtype).apply({'params': gathered_on_use(params, shardings, boxed)}, x).sum()

  w = jax.jit(read)(params)
  assert w.dtype == (dtype or 'float32') and w.sharding.shard_shape(w.shape) == (
    8,
    4 // axes.get('tensor', 1),
  )
  np.testing.assert_array_equal(w, params['w'].astype(w.dtype))
  gradients = jax.jit(jax.grad(loss))(params)
  assert gradients['w'].dtype == jnp.float32
  assert gradients['w'].sharding.shard_shape((8, 4)) == shardings['w'].shard_shape((8, 4))
  expected = np.broadcast_to(x.sum(axis=0)[:, None], (8, 4))
  np.testing.assert_allclose(
    gradients['w'], expected, rtol=1e-2 if dtype else 1e-5, atol=1e-1 if dtype else 1e-5
  )
