import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imagenet_synth.models.convolution import convolve, max_pool

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


@pytest.mark.parametrize(
  'size, window, stride, padding',
  [
    (5, 1, 1, 'SAME'),
    (5, 1, 2, 'VALID'),
    (6, 1, 2, [(0, 0), (0, 0)]),
    (2, 3, 1, 'SAME'),
    (2, 3, 1, [(1, 1), (1, 1)]),
    (2, 3, 2, [(1, 1), (1, 1)]),
    (2, 3, 2, 'SAME'),
    (1, 3, 1, [(1, 1), (1, 1)]),
    (1, 7, 2, [(3, 3), (3, 3)]),
    (4, 3, 2, 'SAME'),
    (5, 3, 2, 'SAME'),
    (8, 3, 2, 'SAME'),
  ],
)
def test_values_and_gradients_are_the_convolution_s(size, window, stride, padding):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, size, size, 4)).astype(np.float32)
  kernel = rng.normal(size=(window, window, 4, 5)).astype(np.float32)

  def both(convolution):
    y, pull = jax.vjp(
      lambda x, kernel: convolution(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT),
      x,
      kernel,
    )
    return (y, *pull(jnp.cos(y)))

  for ours, expected in zip(both(convolve), both(lax.conv_general_dilated), strict=True):
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_it_is_no_convolution_where_a_product_does():
  def text(size, window):
    x, kernel = jnp.zeros((1, size, size, 2)), jnp.zeros((window, window, 2, 3))
    return str(
      jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, (1, 1), 'SAME', dimension_numbers=_LAYOUT))(
        x, kernel
      )
    )

  assert 'dot_general' in text(4, 1) and 'conv_general' not in text(4, 1)
  assert 'dot_general' in text(2, 3) and 'conv_general' not in text(2, 3)
  assert 'conv_general_dilated' in text(3, 3)


@pytest.mark.parametrize('size, window', [(4, 1), (2, 3), (3, 3)])
def test_the_precision_that_a_layer_asks_for_is_kept(size, window):
  """However the sums are computed; without it, GPUs and TPUs round products to 10 or 8 bits."""
  x = jnp.zeros((1, size, size, 2))
  for precision, num in (('highest', 2), (None, 0)):
    layer = nn.Conv(3, (window, window), precision=precision, conv_general_dilated=convolve)
    program = str(jax.make_jaxpr(layer.init_with_output)(jax.random.key(0), x))
    # of both operands
    assert program.count('Precision.HIGHEST') == num


@pytest.mark.parametrize('size, stride, padding', [(5, 1, 1), (5, 2, 0), (6, 2, 0), (6, 2, 1), (7, 2, 1)])
def test_the_largest_of_each_window_and_its_gradient(size, stride, padding):
  x = jax.random.normal(jax.random.key(0), (2, size, size, 3))

  def both(pool):
    y, pull = jax.vjp(pool, x)
    return y, *pull(jnp.cos(y))

  expected = both(
    lambda x: nn.max_pool(x, (3, 3), (stride, stride), ((padding, padding), (padding, padding)))
  )
  for ours, theirs in zip(both(lambda x: max_pool(x, stride, padding)), expected, strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_of_equal_values_one_gets_the_gradient():
  x = jnp.zeros((1, 3, 3, 1))
  gradient = jax.grad(lambda x: max_pool(x, stride=1).sum())(x)
  assert gradient[0, 0, 0, 0] == 1 and gradient.sum() == 1


@pytest.mark.parametrize('features', [2, 6])
def test_the_kernel_s_gradient_keeps_the_precision(features):
  layer = nn.Conv(features, (1, 1), precision='highest', conv_general_dilated=convolve)
  x = jnp.zeros((1, 2, 2, 4))
  variables = layer.init(jax.random.key(0), x)
  loss = lambda variables, x: layer.apply(variables, x).sum()
  program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(variables, x))
  # of both operands of three products: the value, and the gradients of image and kernel
  assert program.count('Precision.HIGHEST') == 6
