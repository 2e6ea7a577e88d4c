"""The encoder of T5 v1.1 and ByT5, which turns token ids into text states.

It is that of Raffel et al., 2020 (arXiv:1910.10683), with the gated tanh-gelu of T5 v1.1; there is no
bias anywhere, and no 1/sqrt(d) in the attention. ByT5 (arXiv:2105.13626) is the same network over
bytes. Parameters have the names that T5X gives them, and its logical axes.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from imagenet_synth.core.config import Count, Range
from imagenet_synth.core.gathering import named

NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of an encoder."""

  # tokens that it knows
  vocab_size: Count
  # channels of a token
  width: Count
  # blocks
  num_layers: Count
  # attention heads of a block
  num_heads: Count
  # channels of an attention head; all heads together need not have `width`
  head_size: Count
  # width of a block's hidden layer
  mlp_size: Count
  # buckets of the relative positions, half of them for keys after the query
  relative_buckets: Annotated[int, Range(low=4)] = 32
  # the distance from which on all keys fall into the last bucket
  relative_max_distance: Count = 128


def _t5_v1_1(width: int, num_layers: int, num_heads: int, mlp_size: int) -> T5Config:
  return T5Config(32128, width, num_layers, num_heads, 64, mlp_size)


def _byt5(width: int, num_layers: int, num_heads: int, mlp_size: int) -> T5Config:
  return T5Config(384, width, num_layers, num_heads, 64, mlp_size)


# github.com/google-research/t5x: t5x/examples/t5/t5_1_1/*.gin and t5x/examples/t5/byt5/*.gin, where
# the vocabulary is rounded up to a multiple of 128 and so is larger than the tokenizer's.
T5Size = Literal[
  't5_v1_1_small', 't5_v1_1_base', 't5_v1_1_large', 't5_v1_1_xl', 't5_v1_1_xxl', 'byt5_small', 'byt5_base'
]

PUBLIC_CONFIGS: dict[T5Size, T5Config] = {
  't5_v1_1_small': _t5_v1_1(512, 8, 6, 1024),
  't5_v1_1_base': _t5_v1_1(768, 12, 12, 2048),
  't5_v1_1_large': _t5_v1_1(1024, 24, 16, 2816),
  't5_v1_1_xl': _t5_v1_1(2048, 24, 32, 5120),
  't5_v1_1_xxl': _t5_v1_1(4096, 24, 64, 10240),
  'byt5_small': _byt5(1472, 12, 6, 3584),
  'byt5_base': _byt5(1536, 18, 12, 3968),
}


def relative_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
  """Returns the bucket of each key's position relative to each query's: int32 [length, length].

  The first axis is that of the queries. Half of the buckets are for keys after the query. In each half,
  half of the buckets hold one distance each, the rest are spaced by logarithm up to `max_distance` and
  the last one takes all beyond it (arXiv:1910.10683, section 2.1).
  """
  position = np.arange(length)
  offset = position[None, :] - position[:, None]
  half = num_buckets // 2
  num_exact = half // 2
  distance = np.abs(offset)
  # The epsilon keeps a distance on the edge of a bucket from falling below it by rounding.
  ratio = np.maximum(distance, num_exact) / num_exact + np.finfo(np.float32).eps
  logarithmic = np.log(ratio) / math.log(max_distance / num_exact) * (half - num_exact)
  far = np.minimum(num_exact + logarithmic.astype(np.int32), half - 1)
  return (np.where(distance < num_exact, distance, far) + half * (offset > 0)).astype(np.int32)


def _normal(variance: float, dtype: DTypeLike, *axes: str) -> Callable[..., Any]:
  """Returns an initialiser of kernels: normal of variance `variance / fan_in`, with logical axis names."""
  init = nn.initializers.variance_scaling(variance, 'fan_in', 'normal')
  return named(init, axes, dtype)


def _norm(name: str, dtype: DTypeLike) -> nn.RMSNorm:
  ones = named(nn.initializers.ones, ('embed',))
  return nn.RMSNorm(NORM_EPSILON, dtype=dtype, scale_init=ones, name=name)


class RelativePositionBias(nn.Module):
  """The bias that all layers add to their attention, by relative position: float32 [1, heads, L, L]."""

  config: T5Config

  @nn.compact
  def __call__(self, length: int) -> jax.Array:
    config = self.config
    normal = nn.initializers.normal(config.width**-0.5)
    # not the box that this returns, as its type says: `param` opens it
    init: Callable[..., Any] = named(normal, ('heads', 'relpos_buckets'))
    rel_embedding = self.param('rel_embedding', init, (config.num_heads, config.relative_buckets))
    buckets = relative_buckets(length, config.relative_buckets, config.relative_max_distance)
    return rel_embedding[None, :, buckets]


class SelfAttention(nn.Module):
  """Unscaled attention of x [B, L, width], with bias [1, heads, L, L] and mask of keys bool [B, L]."""

  config: T5Config
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, bias: jax.Array, mask: jax.Array) -> jax.Array:
    config = self.config

    def project(name: str, variance: float) -> jax.Array:
      """Returns queries, keys or values: [B, L, heads, head_size]."""
      return nn.DenseGeneral(
        (config.num_heads, config.head_size),
        use_bias=False,
        dtype=self.dtype,
        kernel_init=_normal(variance, self.dtype, 'embed', 'heads', 'kv'),
        name=name,
      )(x)

    # The initial query carries the 1/sqrt(head_size) that the attention itself does not have.
    query = project('query', 1 / config.head_size)
    mixed = jax.nn.dot_product_attention(
      query, project('key', 1.0), project('value', 1.0), bias, mask[:, None, None, :], scale=1.0
    )
    return nn.DenseGeneral(
      config.width,
      axis=(-2, -1),
      use_bias=False,
      dtype=self.dtype,
      kernel_init=_normal(1.0, self.dtype, 'heads', 'kv', 'embed'),
      name='out',
    )(mixed)


class GatedMlp(nn.Module):
  """(gelu(x wi_0) * (x wi_1)) wo of x [B, L, width], with the tanh approximation of gelu."""

  config: T5Config
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def dense(size: int, name: str, *axes: str) -> nn.Dense:
      init = _normal(1.0, self.dtype, *axes)
      return nn.Dense(size, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)

    gate = jax.nn.gelu(dense(self.config.mlp_size, 'wi_0', 'embed', 'mlp')(x), approximate=True)
    linear = dense(self.config.mlp_size, 'wi_1', 'embed', 'mlp')(x)
    return dense(self.config.width, 'wo', 'mlp', 'embed')(gate * linear)


class EncoderLayer(nn.Module):
  """Attention and MLP, each after its norm and added to the float32 stream x [B, L, width]."""

  config: T5Config
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, bias: jax.Array, mask: jax.Array) -> jax.Array:
    attention = SelfAttention(self.config, self.dtype, name='attention')
    mlp = GatedMlp(self.config, self.dtype, name='mlp')
    x = x + attention(_norm('pre_attention_layer_norm', self.dtype)(x), bias, mask)
    return x + mlp(_norm('pre_mlp_layer_norm', self.dtype)(x))


class T5Encoder(nn.Module):
  """The encoder of T5 v1.1 or ByT5, without dropout: it is only ever used frozen."""

  config: T5Config
  # what matrix products are computed in; parameters, the statistics of the norms, the softmax and the
  # residual stream are float32
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the text states of a batch of tokens: float32 [B, L, width].

    Args:
      ids: int32 [B, L], each in [0, vocab_size).
      mask: bool [B, L], True where there is a token. Nothing attends to a False position, but its
        own state is still computed.
    """
    config = self.config
    init = named(nn.initializers.normal(1.0), ('vocab', 'embed'))
    x = nn.Embed(config.vocab_size, config.width, embedding_init=init, name='token_embedder')(ids)
    bias = RelativePositionBias(config, name='relpos_bias')(ids.shape[1])
    for i in range(config.num_layers):
      x = EncoderLayer(config, self.dtype, name=f'layers_{i}')(x, bias, mask)
    return _norm('encoder_norm', jnp.float32)(x)
