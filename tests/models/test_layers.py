"""Layers against float64 and flax, and which arguments of attention are given to the fused kernel."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.models.layers import GroupNorm, attend, gelu


def _attend64(query, key, value, mask):
  """Attention in float64, one head after the other."""
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  logits = np.einsum('blhd,bmhd->bhlm', query, key) / np.sqrt(query.shape[-1])
  if mask is not None:
    logits = np.where(mask[:, None, None, :], logits, -np.inf)
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return np.einsum('bhlm,bmhd->blhd', weights / weights.sum(axis=-1, keepdims=True), value)


@pytest.fixture
def given(monkeypatch):
  """What `attend` gives to jax's attention on a GPU; it is computed without cuDNN."""
  calls, compute = [], jax.nn.dot_product_attention

  def record(query, key, value, *, implementation=None, **more):
    calls.append(dict(query=query, key=key, implementation=implementation, **more))
    return compute(query, key, value, **more)

  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax.nn, 'dot_product_attention', record)
  return calls


def _arguments(length, num_keys, size, dtype, masked):
  rng = np.random.default_rng(0)
  query, key, value = (
    jnp.asarray(rng.normal(size=(2, num, 3, size)), dtype) for num in (length, num_keys, num_keys)
  )
  mask = rng.random((2, num_keys)) < 0.7
  return query, key, value, jnp.asarray(mask) if masked else None


@pytest.mark.parametrize(
  'length, num_keys, size, dtype, masked, fused',
  [
    # pixels of IF, whose 77 tokens come before them
    (16, 93, 64, 'bfloat16', False, True),
    (16, 77, 64, 'bfloat16', False, True),
    (16, 92, 64, 'float16', False, True),
    (16, 92, 64, 'bfloat16', True, True),
    (16, 92, 128, 'bfloat16', True, True),
    # jax gives a mask to the kernel as a bias, with which lengths must be even
    (16, 93, 64, 'bfloat16', True, False),
    # one query, which pools a text
    (1, 78, 64, 'bfloat16', False, False),
    (15, 92, 64, 'bfloat16', False, False),
    (16, 92, 64, 'float32', False, False),
    (16, 92, 4, 'bfloat16', False, False),
    (16, 92, 136, 'bfloat16', False, False),
  ],
)
def test_the_fused_kernel_gets_what_jax_lets_it_have(length, num_keys, size, dtype, masked, fused, given):
  query, key, value, mask = _arguments(length, num_keys, size, dtype, masked)
  out = attend(query, key, value, mask)
  assert [call['implementation'] for call in given] == ['cudnn'] * fused
  for call in given:
    # also where gradients are taken, and with a row of the mask for each query
    assert call['query'].shape[1] % 2 == call['key'].shape[1] % 2 == 0
    assert call['mask'] is None or call['mask'].shape == (2, 1, length, num_keys)
  assert out.dtype == dtype
  np.testing.assert_allclose(np.float64(out), _attend64(query, key, value, mask), atol=0.02)


def test_a_key_that_makes_their_number_even_is_not_attended_to(given):
  query, key, value, _ = _arguments(16, 5, 8, 'bfloat16', False)
  # far from 0, where the added key is
  value = value + 100
  gradients = jax.grad(lambda *args: attend(*args).astype(jnp.float32).sum(), (0, 1, 2))(query, key, value)
  out = attend(query, key, value)
  assert given[0]['key'].shape[1] == 6
  assert jnp.abs(out - 100).max() < 5
  assert [gradient.shape for gradient in gradients] == [query.shape, key.shape, value.shape]
  # each query's weights sum to 1
  np.testing.assert_allclose(jnp.float32(gradients[2]).sum(axis=1), 16, rtol=0.02)


def test_where_nothing_can_be_attended_to_all_is_alike():
  query, key, value, _ = _arguments(4, 6, 8, 'float32', False)
  out = attend(query, key, value, jnp.zeros((2, 6), bool))
  np.testing.assert_allclose(out, jnp.broadcast_to(value.mean(axis=1, keepdims=True), out.shape), atol=1e-5)


@pytest.mark.parametrize('dtype, tolerance', [('float32', 2e-6), ('bfloat16', 0.02)])
@pytest.mark.parametrize('masked', [False, True])
def test_attention_and_its_gradients_are_those_of_float64(dtype, tolerance, masked):
  query, key, value, mask = _arguments(5, 7, 8, dtype, masked)
  # far apart, so that weights of 1 and of 0 are among them
  query = 4 * query
  np.testing.assert_allclose(
    np.float64(attend(query, key, value, mask)), _attend64(query, key, value, mask), atol=tolerance
  )
  where = None if mask is None else mask[:, None, None, :]
  total = lambda attention, *args: jnp.sum(attention(*args).astype(jnp.float32) ** 2)
  ours = jax.grad(lambda *args: total(lambda *x: attend(*x, mask), *args), (0, 1, 2))(query, key, value)
  jaxs = jax.grad(
    lambda *args: total(lambda *x: jax.nn.dot_product_attention(*x, mask=where), *args), (0, 1, 2)
  )(query, key, value)
  for mine, other in zip(ours, jaxs):
    np.testing.assert_allclose(np.float64(mine), np.float64(other), atol=20 * tolerance)


@pytest.mark.parametrize('shape', [(2, 4, 4, 12), (3, 5, 12), (2, 1, 1, 12)])
@pytest.mark.parametrize('dtype, tolerance', [('float32', 2e-6), ('bfloat16', 0.02)])
def test_group_norm_is_flax_s(shape, dtype, tolerance):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(0.5, 2, shape), dtype)
  norm = GroupNorm(4, 1e-5, dtype)
  variables = {'params': {name: jnp.asarray(rng.normal(size=12), jnp.float32) for name in ('scale', 'bias')}}
  assert jax.tree.structure(nn.unbox(norm.init(jax.random.key(0), x))) == jax.tree.structure(variables)
  flaxs = nn.GroupNorm(4, epsilon=1e-5, dtype='float32')
  out = norm.apply(variables, x)
  assert out.dtype == dtype
  np.testing.assert_allclose(np.float64(out), flaxs.apply(variables, x), atol=2 * tolerance)


def test_gelu_is_that_of_float64_to_two_units_in_the_last_place_of_x():
  x = np.linspace(-12, 12, 4001, dtype=np.float32)
  exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
  assert np.max(np.abs(np.float64(gelu(jnp.asarray(x))) - exact) / np.maximum(np.abs(x), 1)) < 2e-7
  half = gelu(jnp.asarray(x, jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  rounded = np.float64(jnp.asarray(x, jnp.bfloat16))
  exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in rounded])
  np.testing.assert_allclose(np.float64(half), exact, rtol=2**-8, atol=1e-6)
