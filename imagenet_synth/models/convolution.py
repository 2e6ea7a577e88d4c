"""Convolutions as matrix products where that is as good everywhere and much faster on CPUs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


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
  twice as fast, and four times in the kernel's gradient) or larger than the image (there XLA would
  exchange the two, and on CPUs run plain loops, a hundred times slower). It is for convolutions without
  dilation and groups, and without padding of 1x1 kernels. `precision` is what `lax` takes.
  """
  size, window = x.shape[1:3], kernel.shape[:2]
  if window == (1, 1):
    return jnp.matmul(x[:, :: strides[0], :: strides[1]], kernel[0, 0], precision=precision)
  if size[0] * size[1] < window[0] * window[1]:
    if isinstance(padding, str):
      padding = lax.padtype_to_pads(size, window, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    ends = [length - side + 1 for length, side in zip(x.shape[1:3], window, strict=True)]
    patches = [
      x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
      for i in range(window[0])
      for j in range(window[1])
    ]
    flat_kernel = kernel.reshape(-1, kernel.shape[-1])
    return jnp.matmul(jnp.concatenate(patches, -1), flat_kernel, precision=precision)
  return lax.conv_general_dilated(x, kernel, strides, padding, precision=precision, **more)
