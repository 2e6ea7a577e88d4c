"""Inception-v3 as FID and Inception Score (IS) use it: TensorFlow's graph of 2015-12-05, quirks and all.

Szegedy et al., "Rethinking the Inception Architecture" (2016), with the pooling of that graph: average
pools count no padding, and the last block pools by maximum. Batch norms are folded into the
convolutions (`weights.inception`), as the network is never trained here.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.models.convolution import convolve, max_pool

INPUT_SIZE = 299


class InceptionV3(nn.Module):
  """The network with all outputs that FID, IS and their relatives are made of."""

  dtype: str = 'float32'

  @nn.compact
  def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
    """Returns the features of pictures, by the names that torch-fidelity gives them.

    Args:
      images: [B, H, W, 3] in [0, 255], uint8 or float; resized to 299x299 here.

    Returns:
      float32: '64' [B, 64], '192' [B, 192], '768' [B, 768]: means over the map after the first pool,
      the second pool and Mixed_6e; '2048' [B, 2048], what FID uses; 'logits_unbiased' [B, 1008],
      without the last bias, what IS uses; 'logits' [B, 1008].
    """

    def conv(x: jax.Array, features: int, size: tuple[int, int], name: str, **more: Any) -> jax.Array:
      return _Conv(features, size, dtype=self.dtype, name=name, **more)(x)

    def mean(x: jax.Array) -> jax.Array:
      return x.astype(jnp.float32).mean(axis=(1, 2))

    x = ((resize(images.astype(jnp.float32), INPUT_SIZE) - 128) / 128).astype(self.dtype)
    outputs = {}
    x = conv(x, 32, (3, 3), 'Conv2d_1a_3x3', stride=2, padding='VALID')
    x = conv(x, 32, (3, 3), 'Conv2d_2a_3x3', padding='VALID')
    x = conv(x, 64, (3, 3), 'Conv2d_2b_3x3')
    x = max_pool(x, stride=2)
    outputs['64'] = mean(x)
    x = conv(x, 80, (1, 1), 'Conv2d_3b_1x1')
    x = conv(x, 192, (3, 3), 'Conv2d_4a_3x3', padding='VALID')
    x = max_pool(x, stride=2)
    outputs['192'] = mean(x)
    for block, pool_features in (('5b', 32), ('5c', 64), ('5d', 64)):
      x = _Block35(pool_features, self.dtype, name=f'Mixed_{block}')(x)
    x = _Reduce35(self.dtype, name='Mixed_6a')(x)
    for block, features in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
      x = _Block17(features, self.dtype, name=f'Mixed_{block}')(x)
    outputs['768'] = mean(x)
    x = _Reduce17(self.dtype, name='Mixed_7a')(x)
    x = _Block8(_average_pool, self.dtype, name='Mixed_7b')(x)
    x = _Block8(functools.partial(max_pool, stride=1, padding=1), self.dtype, name='Mixed_7c')(x)
    outputs['2048'] = mean(x)
    logits = nn.Dense(1008, use_bias=False, name='fc')(outputs['2048'])
    bias = self.param('fc_bias', nn.initializers.zeros, (1008,))
    return {**outputs, 'logits_unbiased': logits, 'logits': logits + bias[None]}


def resize(images: jax.Array, size: int) -> jax.Array:
  """Returns images of another size by TensorFlow 1's bilinear rule: [B, H, W, C] -> [B, size, size, C].

  Output pixel i is taken at i * H / size: neither the corners nor the centres of pixels are aligned,
  and nothing is antialiased.
  """
  rows, columns = (_interpolation(length, size) for length in images.shape[1:3])
  return jnp.einsum('ih,bhwc,jw->bijc', rows, images, columns, precision='highest')


def _interpolation(length: int, size: int) -> np.ndarray:
  """Returns float32 [size, length]: a row has the weights of the two pixels that an output is between."""
  position = np.arange(size, dtype=np.float32) * np.float32(length / size)
  low = position.astype(np.int32)
  high = np.minimum(low + 1, length - 1)
  weights = np.zeros((size, length), np.float32)
  np.add.at(weights, (np.arange(size), low), 1 - (position - low))
  np.add.at(weights, (np.arange(size), high), position - low)
  return weights


class _Conv(nn.Module):
  """A convolution with its batch norm folded in, and a rectifier."""

  features: int
  size: tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.relu(
      nn.Conv(
        self.features,
        self.size,
        (self.stride, self.stride),
        self.padding,
        dtype=self.dtype,
        name='conv',
        conv_general_dilated=convolve,
      )(x)
    )


class _Block35(nn.Module):
  """A block at 35x35 pixels."""

  pool_features: int
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = _chain(self.dtype)
    return jnp.concatenate(
      [
        conv(x, ('branch1x1', 64, (1, 1))),
        conv(x, ('branch5x5_1', 48, (1, 1)), ('branch5x5_2', 64, (5, 5))),
        conv(
          x, ('branch3x3dbl_1', 64, (1, 1)), ('branch3x3dbl_2', 96, (3, 3)), ('branch3x3dbl_3', 96, (3, 3))
        ),
        conv(_average_pool(x), ('branch_pool', self.pool_features, (1, 1))),
      ],
      axis=-1,
    )


class _Reduce35(nn.Module):
  """The block from 35x35 to 17x17 pixels."""

  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv, halve = _chain(self.dtype), dict(stride=2, padding='VALID')
    return jnp.concatenate(
      [
        conv(x, ('branch3x3', 384, (3, 3)), **halve),
        conv(
          x,
          ('branch3x3dbl_1', 64, (1, 1)),
          ('branch3x3dbl_2', 96, (3, 3)),
          ('branch3x3dbl_3', 96, (3, 3)),
          **halve,
        ),
        max_pool(x, stride=2),
      ],
      axis=-1,
    )


class _Block17(nn.Module):
  """A block at 17x17 pixels, with convolutions of 7 pixels in one direction at a time."""

  features: int
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv, inner = _chain(self.dtype), self.features
    return jnp.concatenate(
      [
        conv(x, ('branch1x1', 192, (1, 1))),
        conv(x, ('branch7x7_1', inner, (1, 1)), ('branch7x7_2', inner, (1, 7)), ('branch7x7_3', 192, (7, 1))),
        conv(
          x,
          ('branch7x7dbl_1', inner, (1, 1)),
          ('branch7x7dbl_2', inner, (7, 1)),
          ('branch7x7dbl_3', inner, (1, 7)),
          ('branch7x7dbl_4', inner, (7, 1)),
          ('branch7x7dbl_5', 192, (1, 7)),
        ),
        conv(_average_pool(x), ('branch_pool', 192, (1, 1))),
      ],
      axis=-1,
    )


class _Reduce17(nn.Module):
  """The block from 17x17 to 8x8 pixels."""

  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv, halve = _chain(self.dtype), dict(stride=2, padding='VALID')
    return jnp.concatenate(
      [
        conv(x, ('branch3x3_1', 192, (1, 1)), ('branch3x3_2', 320, (3, 3)), **halve),
        conv(
          x,
          ('branch7x7x3_1', 192, (1, 1)),
          ('branch7x7x3_2', 192, (1, 7)),
          ('branch7x7x3_3', 192, (7, 1)),
          ('branch7x7x3_4', 192, (3, 3)),
          **halve,
        ),
        max_pool(x, stride=2),
      ],
      axis=-1,
    )


class _Block8(nn.Module):
  """A block at 8x8 pixels, where the last convolutions fan out into a row and a column."""

  pool: Callable[[jax.Array], jax.Array]
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = _chain(self.dtype)
    single = conv(x, ('branch3x3_1', 384, (1, 1)))
    double = conv(x, ('branch3x3dbl_1', 448, (1, 1)), ('branch3x3dbl_2', 384, (3, 3)))
    return jnp.concatenate(
      [
        conv(x, ('branch1x1', 320, (1, 1))),
        conv(single, ('branch3x3_2a', 384, (1, 3))),
        conv(single, ('branch3x3_2b', 384, (3, 1))),
        conv(double, ('branch3x3dbl_3a', 384, (1, 3))),
        conv(double, ('branch3x3dbl_3b', 384, (3, 1))),
        conv(self.pool(x), ('branch_pool', 192, (1, 1))),
      ],
      axis=-1,
    )


def _chain(dtype: str) -> Callable[..., jax.Array]:
  """Returns a function of x and (name, features, size), ...: x after these convolutions.

  Its keywords are for the last of them.
  """

  def chain(x: jax.Array, *convs: tuple[str, int, tuple[int, int]], **last: Any) -> jax.Array:
    for i, (name, features, size) in enumerate(convs):
      more = last if i == len(convs) - 1 else {}
      x = _Conv(features, size, dtype=dtype, name=name, **more)(x)
    return x

  return chain


def _average_pool(x: jax.Array) -> jax.Array:
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
