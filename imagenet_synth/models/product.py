"""The matrix product of layers, whose gradient XLA is fast at on CPUs, and as fast at elsewhere."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def product(x: jax.Array, kernel: jax.Array, dimensions: Any = None, precision: Any = None) -> jax.Array:
  """Returns x [..., C] times kernel [C, D]; for use as the `dot_general` of `nn.Dense`.

  For the kernel's gradient one factor has its rows and columns exchanged. Left to itself, XLA on CPUs
  computes what led to the gradient of the product once more in that order, writing across the rows: this took
  a fifth of a ResNet-50's step. Here it is computed once, and the factor with fewer columns is turned.

  Args:
    x: the factor on the left.
    kernel: the parameters.
    dimensions: what `lax.dot_general` takes: the last dimension of `x` and the first of `kernel`.
    precision: what `lax.dot_general` takes.
  """
  del dimensions
  return _product(x, kernel, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
  return jnp.matmul(x, kernel, precision=precision)


def _forward(
  x: jax.Array, kernel: jax.Array, precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _product(x, kernel, precision), (x, kernel)


def _backward(
  precision: Any, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  gradient = lax.optimization_barrier(gradient)
  rows, of_rows = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
  times = functools.partial(lax.dot_general, dimension_numbers=(((0,), (0,)), ((), ())), precision=precision)
  of_kernel = times(rows, of_rows) if rows.shape[1] <= of_rows.shape[1] else times(of_rows, rows).T
  return jnp.matmul(gradient, kernel.T, precision=precision), of_kernel


_product.defvjp(_forward, _backward)
