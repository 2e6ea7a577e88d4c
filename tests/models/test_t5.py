"""The T5 encoder against published sizes, its own symmetries, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imagenet_synth.models import t5, tokens

TINY = t5.T5Config(vocab_size=384, width=64, num_layers=2, num_heads=4, head_size=16, mlp_size=128)
DIGITS = 'zero one two three four five six seven eight nine'.split()


@pytest.fixture(scope='module')
def tiny_params():
  ids, mask = tokens.byte_tokens(DIGITS, 8)
  return nn.unbox(jax.jit(t5.T5Encoder(TINY).init)(jax.random.key(0), ids, mask))


def encode(params, ids, mask, dtype=jnp.float32):
  return np.asarray(jax.jit(t5.T5Encoder(TINY, dtype).apply)(params, ids, mask))


# The encoder with its embedding: vocab * width + 32 * heads + width
# + layers * (4 * width * heads * head_size + 3 * width * mlp + 2 * width).
@pytest.mark.parametrize(
  'name, count',
  [
    ('t5_v1_1_small', 35_332_800),
    ('t5_v1_1_base', 109_628_544),
    ('t5_v1_1_large', 341_231_104),
    ('t5_v1_1_xl', 1_223_527_424),
    ('t5_v1_1_xxl', 4_762_310_656),
    ('byt5_small', 217_657_472),
    ('byt5_base', 414_703_488),
  ],
)
def test_public_sizes_have_the_published_parameter_counts(name, count):
  ids, mask = jnp.zeros([1, 1], jnp.int32), jnp.ones([1, 1], bool)
  variables = jax.eval_shape(t5.T5Encoder(t5.PUBLIC_CONFIGS[name]).init, jax.random.key(0), ids, mask)
  leaves = jax.tree.leaves(nn.unbox(variables))
  assert sum(leaf.size for leaf in leaves) == count
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


def test_parameters_carry_logical_axes():
  ids, mask = jnp.zeros([1, 1], jnp.int32), jnp.ones([1, 1], bool)
  variables = jax.eval_shape(t5.T5Encoder(TINY).init, jax.random.key(0), ids, mask)
  spec = nn.get_partition_spec(variables)['params']
  layer = spec['layers_1']
  assert tuple(spec['token_embedder']['embedding']) == ('vocab', 'embed')
  assert tuple(spec['relpos_bias']['rel_embedding']) == ('heads', 'relpos_buckets')
  assert tuple(spec['encoder_norm']['scale']) == ('embed',)
  assert tuple(layer['attention']['key']['kernel']) == ('embed', 'heads', 'kv')
  assert tuple(layer['attention']['out']['kernel']) == ('heads', 'kv', 'embed')
  assert tuple(layer['mlp']['wi_1']['kernel']) == ('embed', 'mlp')
  assert tuple(layer['mlp']['wo']['kernel']) == ('mlp', 'embed')
  boxed = jax.tree.leaves(variables, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
  assert all(len(box.names) == box.value.ndim for box in boxed)


def far_bucket(distance):
  """8 + floor(8 log(d / 8) / log(16)) = 8 + the largest k with d^2 >= 64 * 2^k, in integers."""
  return 8 + max(k for k in range(8) if distance**2 >= 64 * 2**k)


def test_relative_buckets_follow_the_rule_in_integers():
  buckets = t5.relative_buckets(300, num_buckets=32, max_distance=128)
  before = [d if d < 8 else far_bucket(d) for d in range(300)]
  np.testing.assert_array_equal(buckets[:, 0], before)
  np.testing.assert_array_equal(buckets[0, 1:], 16 + np.array(before[1:]))
  np.testing.assert_array_equal(buckets[1:, 1:], buckets[:-1, :-1])
  assert buckets.dtype == np.int32


def test_padding_does_not_reach_the_tokens(tiny_params):
  ids, mask = tokens.byte_tokens(DIGITS, 8)
  longer = tokens.byte_tokens(DIGITS, 12)
  junk = np.where(longer.mask, longer.ids, 77).astype(np.int32)
  states = encode(tiny_params, ids, mask)
  np.testing.assert_allclose(
    encode(tiny_params, junk, longer.mask)[:, :8][mask], states[mask], rtol=1e-4, atol=1e-5
  )
  assert states.dtype == np.float32
  assert states.shape == (10, 8, 64)


def test_position_bias_makes_order_matter(tiny_params):
  ids, mask = tokens.byte_tokens(['ab', 'ba'], 3)
  states = encode(tiny_params, ids, mask)
  assert np.linalg.norm(states[0, 0] - states[1, 1]) > 0.05 * np.linalg.norm(states[0, 0])


def test_bfloat16_stays_near_float32_and_returns_float32(tiny_params):
  ids, mask = tokens.byte_tokens(DIGITS, 8)
  exact = encode(tiny_params, ids, mask)
  rounded = encode(tiny_params, ids, mask, jnp.bfloat16)
  assert rounded.dtype == np.float32
  error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
  assert 0 < error < 0.03


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_random_weights_tell_the_digits_apart(seed):
  ids, mask = tokens.byte_tokens(DIGITS, 8)
  params = nn.unbox(jax.jit(t5.T5Encoder(TINY).init)(jax.random.key(seed), ids, mask))
  states = encode(params, ids, mask)
  # The norm at the end leaves each state with a mean square of one.
  np.testing.assert_allclose(np.mean(states**2, axis=-1), 1, rtol=1e-4)
  pooled = np.sum(states * mask[..., None], axis=1) / np.sum(mask, axis=1, keepdims=True)
  unit = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
  similarity = (unit @ unit.T)[np.triu_indices(10, k=1)]
  assert similarity.max() < 0.9
