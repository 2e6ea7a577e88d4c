"""Convolutions and max pooling, in the forms that XLA is fast at on CPUs, and as fast at elsewhere."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from imagenet_synth.models.product import product


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  precision: Any = None,
  **more: Any,
) -> jax.Array:
  """Returns `lax.conv_general_dilated` of x [B, H, W, C] and kernel [h, w, C, D]; for use in `nn.Conv`.

  The same sums are computed as a matrix product of patches where the kernel is 1x1 (on CPUs XLA is then
  twice as fast, and four times in the kernel's gradient) or larger than what comes out (there XLA would
  exchange the two for a gradient, and on CPUs run plain loops, a hundred times slower). It is for
  convolutions without dilation and groups, and without padding of 1x1 kernels. `precision` is what `lax`
  takes.
  """
  window = kernel.shape[:2]
  if window == (1, 1):
    return product(x[:, :: strides[0], :: strides[1]], kernel[0, 0], precision=precision)
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
  height, width = (
    (length + sum(pads) - side) // stride + 1
    for length, pads, side, stride in zip(x.shape[1:3], padding, window, strides, strict=True)
  )
  if height * width < window[0] * window[1]:
    patches = _patches(jnp.pad(x, ((0, 0), *padding, (0, 0))), window, strides)
    flat_kernel = kernel.reshape(-1, kernel.shape[-1])
    return product(jnp.concatenate(patches, -1), flat_kernel, precision=precision)
  return lax.conv_general_dilated(x, kernel, strides, padding, precision=precision, **more)


def max_pool(x: jax.Array, stride: int, padding: int = 0) -> jax.Array:
  """Returns the largest of each 3x3 values, of x [B, H, W, C], as `nn.max_pool` does.

  The gradient goes to the first of equal ones, in a fifteenth of the time on CPUs, where XLA makes plain
  loops of a window's gradient.
  """
  outside = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  padded = jnp.pad(x, outside, constant_values=-jnp.inf)
  patches = _patches(padded, (3, 3), (stride, stride))
  return functools.reduce(lambda largest, value: jnp.where(value > largest, value, largest), patches)


def _patches(x: jax.Array, window: Sequence[int], strides: Sequence[int]) -> list[jax.Array]:
  """Returns the values at each place of a window, as it moves over x [B, H, W, C]: arrays [B, h, w, C]."""
  ends = [length - side + 1 for length, side in zip(x.shape[1:3], window, strict=True)]
  return [
    x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
    for i in range(window[0])
    for j in range(window[1])
  ]
