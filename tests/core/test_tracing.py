"""Programs whose casts and memory can be counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.tracing import casts, peak_bytes

_BF16 = np.dtype(jnp.bfloat16)


def _half(x):
  return x.astype(jnp.bfloat16)


@pytest.mark.parametrize(
  'function, expected',
  [
    (lambda x: _half(x) * 2, _BF16),
    (lambda x: _half(x) * 2 + _half(x).sum(), _BF16),
    (lambda x: x * 2, None),
    (lambda x: _half(x) * 2 + x, None),
    (lambda x: (_half(x), x), None),
    (lambda x: _half(x).astype(jnp.float32), _BF16),
    (lambda x: (_half(x), x.astype(jnp.float16)), None),
    (lambda x: x.astype(jnp.int8), None),
    (lambda x: jnp.zeros(()), None),
    # within programs that are called
    (jax.jit(lambda x: _half(x) * 2), _BF16),
    (jax.checkpoint(lambda x: jax.jit(_half)(x) * 2), _BF16),
    (lambda x: jax.jit(lambda x: _half(x) * 2)(x) + x, None),
    (lambda x: jax.jit(lambda x: x)(x), None),
    (lambda x: jax.lax.scan(lambda c, _: (c, _half(c)), x, None, 3)[1], None),
    (lambda x: jax.lax.cond(x.sum() > 0, _half, lambda x: _half(2 * x), x), None),
  ],
)
def test_casts(function, expected):
  assert casts(jax.make_jaxpr(function)(jnp.ones(4))) == [expected]


def test_each_argument_has_its_own_cast():
  program = jax.make_jaxpr(lambda tree, y: _half(tree['a']) @ _half(y) + tree['b'])(
    {'a': jnp.ones((2, 2)), 'b': jnp.ones(2)}, jnp.ones(2)
  )
  assert casts(program) == [_BF16, None, _BF16]


_KB = jnp.ones(256)


@pytest.mark.parametrize(
  'function, kilobytes',
  [
    (lambda x: x + 1, 1),
    # one after the other: what goes in and what comes out
    (lambda x: ((x + 1) * 2) + 3, 2),
    # the first one is needed in the end
    (lambda x: (lambda y: y + (y * 2 + 3))(x + 1), 3),
    (lambda x: jnp.broadcast_to(x, (256, 256)).sum(), 256),
    # in a program that is called, besides what waits outside
    (lambda x: (lambda y: y + jax.jit(lambda z: jnp.broadcast_to(z, (256, 256)).sum(axis=0))(x))(x + 1), 258),
    (lambda x: x.astype(jnp.bfloat16), 0.5),
  ],
)
def test_peak_bytes(function, kilobytes):
  assert peak_bytes(jax.make_jaxpr(function)(_KB)) / 1024 == pytest.approx(kilobytes, abs=0.4)
