"""The layers that the base and the super-resolution U-Nets are made of.

Activations are [B, H, W, C]; text is [B, L, D] with zeros at padding, and all zeros for "no text".
Computation is in `dtype`, parameters and norm statistics in float32. Parameters carry logical axis
names; `core/devices.py` says how these are laid over devices.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagenet_synth.core.gathering import named
from imagenet_synth.models.convolution import convolve
from imagenet_synth.models.product import product

_fan_in = nn.initializers.lecun_normal()
_zeros = nn.initializers.zeros_init()


def conv(
  features: int,
  kernel_size: int = 3,
  stride: int = 1,
  zero: bool = False,
  dtype: DTypeLike = jnp.float32,
  name: str | None = None,
) -> nn.Conv:
  """Returns a convolution with 'SAME' padding; `zero` starts it at 0, so that its branch adds nothing."""
  return nn.Conv(
    features,
    (kernel_size, kernel_size),
    (stride, stride),
    dtype=dtype,
    name=name,
    conv_general_dilated=convolve,
    kernel_init=named(_zeros if zero else _fan_in, (None, None, 'conv_in', 'conv_out'), dtype),
    bias_init=named(_zeros, ('conv_out',)),
  )


def dense(
  features: int, zero: bool = False, dtype: DTypeLike = jnp.float32, name: str | None = None
) -> nn.Dense:
  """Returns a linear layer; `zero` starts it at 0, so that its branch adds nothing."""
  return nn.Dense(
    features,
    dtype=dtype,
    name=name,
    dot_general=product,
    kernel_init=named(_zeros if zero else _fan_in, ('embed', 'mlp'), dtype),
    bias_init=named(_zeros, ('mlp',)),
  )


class GroupNorm(nn.Module):
  """Normalises groups of channels of each image, x [B, ..., C] -> [B, ..., C] (Wu & He, 2018).

  The sums over pixels are of channels, and groups are made of these few numbers, so that an image is read
  twice and written once, as one multiplication and one addition; on CPUs that is two to five times as fast as
  over groups of channels. Statistics are float32, by E[x^2] - E[x]^2.
  """

  # groups of channels, a divisor of C
  num_groups: int
  epsilon: float = 1e-6
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features = x.shape[-1]
    scale = self.param('scale', named(nn.initializers.ones_init(), (None,)), (features,))
    bias = self.param('bias', named(_zeros, (None,)), (features,))
    exact = x.astype(jnp.float32)
    pixels = tuple(range(1, x.ndim - 1))

    def of_groups(each: jax.Array) -> jax.Array:
      """Returns the means over pixels and channels of a group, for each of its channels: [B, C]."""
      means = each.mean(axis=pixels).reshape(len(x), self.num_groups, -1).mean(axis=2)
      return jnp.repeat(means, features // self.num_groups, axis=1)

    mean = of_groups(exact)
    variance = jnp.maximum(of_groups(exact**2) - mean**2, 0)
    factor = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
    offset = bias[None] - mean * factor
    return (exact * jnp.expand_dims(factor, pixels) + jnp.expand_dims(offset, pixels)).astype(self.dtype)


def group_norm(features: int, dtype: DTypeLike = jnp.float32, name: str | None = None) -> GroupNorm:
  """Returns a GroupNorm of 32 groups; of fewer in small networks, where they would be single channels."""
  return GroupNorm(math.gcd(32, max(features // 4, 1)), dtype=dtype, name=name)


def layer_norm(dtype: DTypeLike = jnp.float32, name: str | None = None) -> nn.LayerNorm:
  """Returns a LayerNorm over the last axis."""
  return nn.LayerNorm(
    dtype=dtype,
    name=name,
    scale_init=named(nn.initializers.ones_init(), (None,)),
    bias_init=named(_zeros, (None,)),
  )


def noise_embedding(logsnr: jax.Array, size: int) -> jax.Array:
  """Returns sinusoids [B, size] of the angle whose tangent is sigma / alpha, given logsnr [B].

  The angle runs from 0 to pi/2 over any schedule; scaled to [0, 1000] it takes the place of the
  step number in the sinusoidal embedding (Vaswani et al., 2017, section 3.5).
  """
  t = jnp.arctan(jnp.exp(-0.5 * jnp.clip(logsnr, -20, 20))) * (2 / jnp.pi) * 1000
  half = size // 2
  frequencies = jnp.exp(-math.log(10000) * jnp.arange(half) / half)
  angles = t[:, None] * frequencies[None]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class AttentionPool(nn.Module):
  """Text [B, L, D] -> one vector [B, features]: the mean token attends to all (Imagen, F.1)."""

  features: int
  head_size: int = 64
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, text: jax.Array) -> jax.Array:
    num_heads = max(self.features // self.head_size, 1)
    mask = is_token(text)
    text = layer_norm(self.dtype, 'norm')(text)
    num_tokens = jnp.maximum(mask.sum(axis=1), 1)[:, None, None].astype(text.dtype)
    mean = jnp.sum(text * mask[..., None], axis=1, keepdims=True) / num_tokens
    tokens = jnp.concatenate([mean, text], axis=1)
    heads = functools.partial(split_heads, num_heads=num_heads)
    query = heads(dense(num_heads * self.head_size, dtype=self.dtype, name='query')(tokens[:, :1]))
    key = heads(dense(num_heads * self.head_size, dtype=self.dtype, name='key')(tokens))
    value = heads(dense(num_heads * self.head_size, dtype=self.dtype, name='value')(tokens))
    mask = jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], axis=1)
    pooled = attend(query, key, value, mask).reshape(text.shape[0], -1)
    return dense(self.features, dtype=self.dtype, name='out')(pooled)


class Conditioning(nn.Module):
  """Noise level, pooled text and (SR) noise level of the low-resolution image -> vector [B, features].

  logsnr and aug_logsnr are [B], text is [B, L, D].
  """

  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, logsnr: jax.Array, text: jax.Array, aug_logsnr: jax.Array | None) -> jax.Array:
    def mlp(x: jax.Array, name: str) -> jax.Array:
      x = nn.swish(dense(self.features, dtype=self.dtype, name=f'{name}_in')(x))
      return dense(self.features, dtype=self.dtype, name=f'{name}_out')(x)

    vector = mlp(noise_embedding(logsnr, self.features), 'noise_level')
    if aug_logsnr is not None:
      vector += mlp(noise_embedding(aug_logsnr, self.features), 'augmentation')
    return vector + AttentionPool(self.features, dtype=self.dtype, name='text_pool')(text)


class ResBlock(nn.Module):
  """GroupNorm, swish and conv, twice, with the conditioning as scale and shift of the second norm.

  x [B, H, W, C] and the conditioning [B, F] -> [B, H', W', features].
  """

  features: int
  # 'down' halves H and W inside the block, 'up' doubles them, as in BigGAN; see `resample`
  resample: str = 'none'
  # probability of dropout before the second convolution
  dropout: float = 0.0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, vector: jax.Array, train: bool) -> jax.Array:
    h = nn.swish(group_norm(x.shape[-1], self.dtype, 'norm_in')(x))
    h, x = resample(h, self.resample), resample(x, self.resample)
    h = conv(self.features, dtype=self.dtype, name='conv_in')(h)
    scale_shift = dense(2 * self.features, dtype=self.dtype, name='scale_shift')(nn.swish(vector))
    scale, shift = jnp.split(scale_shift[:, None, None], 2, axis=-1)
    h = nn.swish(group_norm(self.features, self.dtype, 'norm_out')(h) * (1 + scale) + shift)
    h = nn.Dropout(self.dropout, deterministic=not train)(h)
    h = conv(self.features, zero=True, dtype=self.dtype, name='conv_out')(h)
    if x.shape[-1] != self.features:
      x = conv(self.features, kernel_size=1, dtype=self.dtype, name='shortcut')(x)
    return x + h


class Attention(nn.Module):
  """Pixels [B, H, W, C] attend to pixels and to the text [B, L, D] (Imagen, D.3.1).

  The text's keys and values are appended to those of the pixels.
  """

  num_heads: int
  # width of all heads together
  hidden_size: int
  # whether pixels attend to pixels; if not, to the text alone
  self_attention: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, text: jax.Array) -> jax.Array:
    batch_size, height, width, features = x.shape
    pixels = group_norm(features, self.dtype, 'norm')(x).reshape(batch_size, -1, features)
    mask = is_token(text)
    text = layer_norm(self.dtype, 'text_norm')(text)
    heads = functools.partial(split_heads, num_heads=self.num_heads)

    def project(name: str, y: jax.Array) -> jax.Array:
      return heads(dense(self.hidden_size, dtype=self.dtype, name=name)(y))

    keys, values = project('text_key', text), project('text_value', text)
    if self.self_attention:
      keys = jnp.concatenate([project('key', pixels), keys], axis=1)
      values = jnp.concatenate([project('value', pixels), values], axis=1)
      mask = jnp.concatenate([jnp.ones((batch_size, height * width), bool), mask], axis=1)
    out = attend(project('query', pixels), keys, values, mask)
    out = dense(features, zero=True, dtype=self.dtype, name='out')(
      out.reshape(batch_size, height * width, self.hidden_size)
    )
    return x + out.reshape(x.shape)


def rematerialised(remat: bool) -> tuple[type[ResBlock], type[Attention]]:
  """Returns `ResBlock` and `Attention`; if `remat`, what they compute isn't kept for the gradient."""
  if not remat:
    return ResBlock, Attention
  return nn.remat(ResBlock, static_argnums=(3,)), nn.remat(Attention)


def gelu(x: jax.Array) -> jax.Array:
  """Returns the exact gelu (Hendrycks & Gimpel, 2016): x times the share of a standard normal below x.

  It is computed by the error function, which is within 2e-7 |x| of jax.nn.gelu and on CPUs takes half of its
  time.
  """
  exact = x.astype(jnp.float32)
  return (0.5 * exact * (1 + jax.lax.erf(exact * math.sqrt(0.5)))).astype(x.dtype)


def is_token(text: jax.Array) -> jax.Array:
  """Returns where text [B, L, D] is not padding, which is zeros: bool [B, L]."""
  return jnp.any(text != 0, axis=-1)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Returns softmax(q k / sqrt(D)) v, [B, L, H, D], of q [B, L, H, D] and k, v [B, M, H, D].

  With a mask, bool [B, M], nothing attends to keys that are False in it; if all are, to all alike.

  On a GPU it is computed by cuDNN's fused kernel, where that takes the arguments: 16 bits, D a multiple
  of 8 up to 128, L even, and M even or no mask.
  """
  where = None if mask is None else mask[:, None, None, :]
  if not _takes_fused(query, key, mask):
    return _attend(query, key, value, where)
  lengths = None
  if where is not None:
    # the kernel gets it as a bias, which jax wants to have a row for each query
    where = jnp.broadcast_to(where, (*where.shape[:2], query.shape[1], key.shape[1]))
  elif key.shape[1] % 2:
    # jax refuses odd lengths where gradients are taken; nothing attends to the key that makes them even
    lengths = jnp.full(key.shape[0], key.shape[1], jnp.int32)
    key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (key, value))
  return jax.nn.dot_product_attention(
    query, key, value, mask=where, key_value_seq_lengths=lengths, implementation='cudnn'
  )


def _attend(query: jax.Array, key: jax.Array, value: jax.Array, where: jax.Array | None) -> jax.Array:
  """Returns what `attend` does, in operations that any backend has; `where` is bool [B, 1, 1, M].

  Heads are moved in front of tokens before the products, and the mean is divided by the sum of its weights in
  the end: on CPUs it takes half to a fifth of the time of jax.nn.dot_product_attention.
  """
  query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
  logits = jnp.einsum('bhld,bhmd->bhlm', query, key, preferred_element_type=jnp.float32)
  logits *= query.shape[-1] ** -0.5
  if where is not None:
    # not -inf, so that where all are left out the mean is of all
    logits = jnp.where(where, logits, jnp.finfo(jnp.float32).min)
  weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
  sums = jnp.einsum('bhlm,bhmd->bhld', weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
  mean = sums / weights.sum(axis=-1, keepdims=True)
  return jnp.swapaxes(mean.astype(query.dtype), 1, 2)


def _takes_fused(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> bool:
  """Returns whether the arguments of `attend` can be given to the fused kernel."""
  return (
    jax.default_backend() == 'gpu'
    and query.dtype in (jnp.bfloat16, jnp.float16)
    and query.shape[-1] % 8 == 0
    and query.shape[-1] <= 128
    and query.shape[1] % 2 == 0
    and (mask is None or key.shape[1] % 2 == 0)
  )


def split_heads(x: jax.Array, num_heads: int) -> jax.Array:
  """Returns [..., F] as [..., num_heads, F / num_heads]."""
  return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def resample(x: jax.Array, how: str) -> jax.Array:
  """Returns [B, H, W, C] at half ('down', mean of 2x2), twice ('up', nearest) or the same ('none') size."""
  if how == 'down':
    return nn.avg_pool(x, (2, 2), (2, 2))
  return x.repeat(2, axis=1).repeat(2, axis=2) if how == 'up' else x
