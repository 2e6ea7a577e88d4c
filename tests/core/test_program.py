"""Profiles of programs, against what is counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.program import flops, profile


def _shape(*shape, dtype='float32'):
  return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def _layers(params, x):
  for kernel in params:
    x = jnp.sin(x @ kernel)
  return jnp.sum(x)


def _gradients(forward):
  return lambda params, x: (jax.grad(forward)(params, x),)


_WIDTH, _DEPTH, _ROWS = 16, 5, 64
_PARAMS, _X = [_shape(_WIDTH, _WIDTH)] * _DEPTH, _shape(_ROWS, _WIDTH)
_LAYER = 2 * _ROWS * _WIDTH**2


def test_products_of_layers_are_counted_forward_and_on_both_ways_back():
  """The gradient of the first layer's input is wanted by nobody."""
  assert profile(_layers, _PARAMS, (_X,)).flops == _DEPTH * _LAYER
  costs = profile(_gradients(_layers), _PARAMS, (_X,), has_gradients=True)
  assert costs.flops == 3 * _DEPTH * _LAYER - _LAYER


def test_operations_of_a_compiled_function_are_those_of_its_profile():
  traced = jax.jit(_gradients(_layers)).trace(_PARAMS, _X)
  assert flops(traced.jaxpr) == profile(_gradients(_layers), _PARAMS, (_X,)).flops == 14 * _LAYER


def test_what_is_recomputed_for_the_gradient_counts_again():
  def forward(params, x):
    for kernel in params:
      x = jax.checkpoint(lambda x, kernel: jnp.sin(x @ kernel))(x, kernel)
    return jnp.sum(x)

  again = profile(_gradients(forward), _PARAMS, (_X,), has_gradients=True)
  # nobody wants the loss either, and with it the last product on the first way
  assert again.flops == 4 * _DEPTH * _LAYER - 2 * _LAYER
  # only the input of each block is kept
  once = profile(_gradients(_layers), _PARAMS, (_X,), has_gradients=True)
  assert again.activations.max() < once.activations.max()


@pytest.mark.parametrize('stride', [1, 2])
def test_convolutions_and_their_gradients(stride):
  """Three times the forward pass: also where a gradient has rows of zeros between those that count."""
  size, channels, features = 8, 4, 6

  def forward(kernel, x):
    spec = ('NHWC', 'HWIO', 'NHWC')
    return jnp.sum(
      jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, 'SAME', dimension_numbers=spec) ** 2
    )

  kernel, x = _shape(3, 3, channels, features), _shape(1, size, size, channels)
  flops = 2 * 9 * channels * features * (size // stride) ** 2
  assert profile(forward, kernel, (x,)).flops == flops
  both = profile(lambda kernel, x: jax.grad(forward, (0, 1))(kernel, x), kernel, (x,), has_gradients=True)
  assert both.flops == pytest.approx(3 * flops, rel=0.2)


def test_a_loop_counts_as_often_as_it_is_run():
  def forward(kernel, x):
    return jax.lax.scan(lambda x, _: (jnp.sin(x @ kernel), None), x, None, length=7)[0]

  assert profile(forward, _PARAMS[0], (_X,)).flops == 7 * _LAYER


def test_memory_is_what_waits_for_the_way_back():
  """Each layer's product is kept, and what the next one reads; the peak is where the way back begins."""
  costs = profile(_gradients(_layers), _PARAMS, (_X,), has_gradients=True)
  of_layer = 4 * _ROWS * _WIDTH
  # products, their sines but the last, which is summed at once, their gradient and that of the layer before
  assert (2 * _DEPTH - 1) * of_layer <= costs.activations.max() <= (2 * _DEPTH + 2) * of_layer
  # all gradients are there in the end, and nothing else
  assert costs.gradients[-1] == costs.gradients.max() == 4 * _DEPTH * _WIDTH**2
  assert costs.activations[-1] == 0


def test_weights_and_what_is_computed_of_them_alone_are_not_counted():
  def forward(kernel, x):
    return x @ (2 * kernel).astype(jnp.bfloat16).astype(jnp.float32)

  costs = profile(forward, _PARAMS[0], (_X,))
  assert costs.activations.max() == 4 * _ROWS * _WIDTH


def test_elementwise_results_that_are_read_at_once_are_not_in_memory():
  def forward(kernel, x):
    return jnp.sum((jnp.abs(x + 1.0) * 3.0).astype(jnp.float32))

  assert profile(forward, _PARAMS[0], (_X,)).activations.max() == 4


def test_the_peak_of_a_batch_adds_gradients_and_images_where_they_are():
  costs = profile(_gradients(_layers), _PARAMS, (_X,), has_gradients=True)
  assert costs.peak(1) <= costs.activations.max() + costs.gradients.max()
  assert costs.peak(1, 0.0) == costs.activations.max()
  # in a large batch the images are what counts
  assert costs.peak(1000) == pytest.approx(1000 * costs.activations.max(), rel=0.01)
  assert np.all(costs.gradients >= 0) and np.all(costs.activations >= 0)
