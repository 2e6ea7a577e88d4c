"""The U-Nets of DeepFloyd IF, stages I and II, to be used with the published weights.

They are of the Imagen family as DeepFloyd built it (github.com/deep-floyd/IF; also
`UNet2DConditionModel` of Hugging Face diffusers, whose parameter names are kept here). Unlike in
Imagen's own, text is prepended to the keys and values under a GroupNorm over all tokens, activations
are exact gelus, and the output holds a second image, the interpolation of the log variance (Nichol &
Dhariwal, 2021, eq. 15).
"""

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagenet_synth.core.config import Count, Invalid, NotEmpty
from imagenet_synth.models.layers import GroupNorm, attend, conv, dense, gelu, resample, split_heads
from imagenet_synth.models.network import DiffusionNetwork

# of all norms
_NUM_GROUPS = 32
_EPSILON = 1e-5
# stage II divides the sum of a block and its shortcut by this
_SR_SCALE = 1.4142271248762552


class IFUNet(DiffusionNetwork):
  """A U-Net of DeepFloyd IF: stage I if it is called without a low-resolution image, stage II with one."""

  # width of each level; each is at half the size of the one before
  channels: Annotated[tuple[Count, ...], NotEmpty()]
  # residual blocks of each level on the way down, and one more on the way up
  layers_per_block: tuple[Count, ...]
  # whether the pixels of each level attend to each other and to the text
  attention: tuple[bool, ...]
  # width to which the text is projected for attention
  cross_attention_size: Count
  # channels of an attention head
  head_size: Count = 64
  # heads of the attention that pools the text
  pool_heads: Count = 64
  # pixels attend to the text alone, not to each other
  only_cross_attention: bool = False

  @property
  @nn.nowrap
  def size_divisor(self) -> int:
    """Returns what images' sizes must be multiples of: every level but the first halves the size."""
    return 2 ** (len(self.channels) - 1)

  @nn.nowrap
  def validate(self) -> None:
    """Raises `Invalid` if the levels of the fields differ, or channels don't divide into groups or heads."""
    self.require_per_level(len(self.channels), 'layers_per_block', 'attention')
    for features, attends in zip(self.channels, self.attention):
      if features % _NUM_GROUPS:
        raise Invalid('channels', f'has {features}, must be multiples of {_NUM_GROUPS}')
      if attends and features % self.head_size:
        raise Invalid('head_size', f'is {self.head_size}, must divide {features}')
    # the middle attends whatever its level does
    if self.channels[-1] % self.head_size:
      raise Invalid('head_size', f'is {self.head_size}, must divide {self.channels[-1]}')
    if self.cross_attention_size % _NUM_GROUPS:
      raise Invalid(
        'cross_attention_size', f'is {self.cross_attention_size}, must be a multiple of {_NUM_GROUPS}'
      )

  @nn.compact
  def __call__(
    self,
    x_t: jax.Array,
    logsnr: jax.Array,
    text: jax.Array,
    low_res: jax.Array | None = None,
    aug_logsnr: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    """Returns estimates of the noise and of the variance.

    Args:
      x_t: [B, H, W, C], the noisy image.
      logsnr: [B], of the schedule 'iddpm'.
      text: [B, L, D], states of T5, those at padding included.
      low_res: [B, H, W, C], the image that stage II enlarges, already upsampled and noised.
      aug_logsnr: [B], of `low_res`.
      train: has no effect, as there is no dropout.

    Returns:
      float32 [B, H, W, 2 C]: eps, and v in [-1, 1] with log variance (v + 1) / 2 log(upper) +
      (1 - v) / 2 log(lower).
    """
    is_sr = low_res is not None
    scale = _SR_SCALE if is_sr else 1.0
    vector = self._conditioning(logsnr, text, aug_logsnr)
    # one activation for all blocks, where stage I has one in each
    vector = gelu(vector) if is_sr else vector
    tokens = dense(self.cross_attention_size, dtype=self.dtype, name='encoder_hid_proj')(text)
    resnet_class, attention_class = (
      (nn.remat(_ResNet), nn.remat(_Attention)) if self.remat else (_ResNet, _Attention)
    )

    def resnet(x: jax.Array, features: int, name: str, how: str = 'none') -> jax.Array:
      return resnet_class(features, scale, not is_sr, how, self.dtype, name=name)(x, vector)

    def attention(x: jax.Array, name: str) -> jax.Array:
      return attention_class(self.head_size, self.only_cross_attention, self.dtype, name=name)(x, tokens)

    x = x_t if low_res is None else jnp.concatenate([x_t, low_res], axis=-1)
    x = conv(self.channels[0], dtype=self.dtype, name='conv_in')(x)
    skips = [x]
    last = len(self.channels) - 1
    for level, features in enumerate(self.channels):
      block = f'down_blocks_{level}'
      for i in range(self.layers_per_block[level]):
        x = resnet(x, features, f'{block}_resnets_{i}')
        x = attention(x, f'{block}_attentions_{i}') if self.attention[level] else x
        skips.append(x)
      if level < last:
        x = resnet(x, features, f'{block}_downsamplers_0', 'down')
        skips.append(x)

    x = resnet(x, self.channels[-1], 'mid_block_resnets_0')
    x = attention(x, 'mid_block_attentions_0')
    x = resnet(x, self.channels[-1], 'mid_block_resnets_1')

    for position, level in enumerate(reversed(range(last + 1))):
      block = f'up_blocks_{position}'
      for i in range(self.layers_per_block[level] + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = resnet(x, self.channels[level], f'{block}_resnets_{i}')
        x = attention(x, f'{block}_attentions_{i}') if self.attention[level] else x
      if level > 0:
        x = resnet(x, self.channels[level], f'{block}_upsamplers_0', 'up')

    x = gelu(_group_norm(self.dtype, 'conv_norm_out')(x))
    return conv(2 * x_t.shape[-1], zero=True, name='conv_out')(x.astype(jnp.float32))

  def _conditioning(self, logsnr: jax.Array, text: jax.Array, aug_logsnr: jax.Array | None) -> jax.Array:
    """Returns [B, F] of noise level, pooled text and (stage II) noise level of the low-resolution image."""
    features = 4 * self.channels[0] if aug_logsnr is None else self.channels[-1]

    def embed(logsnr: jax.Array, name: str) -> jax.Array:
      return _StepMlp(self.channels[0], features, self.dtype, name=name)(diffusion_step(logsnr))

    vector = embed(logsnr, 'time_embedding')
    if aug_logsnr is not None:
      vector += embed(aug_logsnr, 'class_embedding')
    return vector + _TextEmbedding(features, self.pool_heads, self.dtype, name='add_embedding')(text)


def diffusion_step(logsnr: jax.Array) -> jax.Array:
  """Returns the step in [0, 999] that the networks know logsnr [B] of the schedule 'iddpm' by: [B].

  Step t is at time u = (t + 1) / 1000 of alpha^2 = cos^2(pi / 2 (u + s) / (1 + s)) / cos^2(pi / 2 s /
  (1 + s)), s = 0.008 (Nichol & Dhariwal, 2021, eq. 17), but for the last, whose beta is cut to 0.999. Between
  steps it is not a whole number.
  """
  offset, before_last = 0.008, 0.999
  start = math.pi / 2 * offset / (1 + offset)
  alpha = math.cos(math.pi / 2 * (before_last + offset) / (1 + offset)) / math.cos(start)
  # logsnr at step 998, from where it falls linearly
  bend = 2 * math.log(alpha) - math.log1p(-(alpha**2))
  on_curve = jnp.maximum(logsnr, bend)
  # sin^2(angle) = sigma^2 cos^2(start) + sin^2(start), where an arccosine of alpha would be all rounding
  sine = jnp.sqrt(jax.nn.sigmoid(-on_curve) * math.cos(start) ** 2 + math.sin(start) ** 2)
  cosine = jnp.sqrt(jax.nn.sigmoid(on_curve)) * math.cos(start)
  # counted from 45 degrees, so that both ends keep their digits
  angle = jnp.arctan2(sine - cosine, sine + cosine)
  step = 500 * (1 - offset) - 1 + 2000 / math.pi * (1 + offset) * angle
  last_step = jnp.maximum(bend - logsnr, 0) / math.log(1000)
  return jnp.clip(step + last_step, 0, 999)


class _StepMlp(nn.Module):
  """Step [B] -> [B, features], by `size` sinusoids and an MLP."""

  size: int
  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, step: jax.Array) -> jax.Array:
    frequencies = jnp.exp(-math.log(10000) * jnp.arange(self.size // 2) / (self.size // 2))
    angles = step[:, None] * frequencies[None]
    x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    x = gelu(dense(self.features, dtype=self.dtype, name='linear_1')(x))
    return dense(self.features, dtype=self.dtype, name='linear_2')(x)


class _TextEmbedding(nn.Module):
  """Text [B, L, D], as T5 returns it -> one vector [B, features]."""

  features: int
  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, text: jax.Array) -> jax.Array:
    x = _layer_norm(self.dtype, 'norm1')(text)
    x = _Pool(self.num_heads, self.dtype, name='pool')(x)
    return _layer_norm(self.dtype, 'norm2')(dense(self.features, dtype=self.dtype, name='proj')(x))


class _Pool(nn.Module):
  """Tokens [B, L, D] -> [B, D]: a query made of the mean token attends to it and to all tokens."""

  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    size = x.shape[-1]
    position = self.param('positional_embedding', nn.initializers.normal(size**-0.5), (1, size))
    mean = x.mean(axis=1, keepdims=True) + position.astype(x.dtype)[None]
    tokens = jnp.concatenate([mean, x], axis=1)
    project = lambda name, y: split_heads(dense(size, dtype=self.dtype, name=name)(y), self.num_heads)
    pooled = attend(project('q_proj', mean), project('k_proj', tokens), project('v_proj', tokens))
    return pooled.reshape(x.shape[0], size)


class _ResNet(nn.Module):
  """Two convolutions, each after norm and gelu, with the conditioning as scale and shift."""

  features: int
  # divisor of the sum of branch and shortcut
  scale: float
  # whether the conditioning goes through a gelu first
  activate_vector: bool
  # see `layers.resample`
  how: str
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, vector: jax.Array) -> jax.Array:
    h = gelu(_group_norm(self.dtype, 'norm1')(x))
    h, x = resample(h, self.how), resample(x, self.how)
    h = conv(self.features, dtype=self.dtype, name='conv1')(h)
    vector = gelu(vector) if self.activate_vector else vector
    scale_shift = dense(2 * self.features, dtype=self.dtype, name='time_emb_proj')(vector)
    scale, shift = jnp.split(scale_shift[:, None, None], 2, axis=-1)
    h = gelu(_group_norm(self.dtype, 'norm2')(h) * (1 + scale) + shift)
    h = conv(self.features, zero=True, dtype=self.dtype, name='conv2')(h)
    if x.shape[-1] != self.features:
      x = conv(self.features, kernel_size=1, dtype=self.dtype, name='conv_shortcut')(x)
    return (x + h) / self.scale


class _Attention(nn.Module):
  """Pixels [B, H, W, C] attend to the text tokens [B, L, E] and, unless `only_cross`, to all pixels."""

  head_size: int
  only_cross: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, tokens: jax.Array) -> jax.Array:
    batch_size, height, width, features = x.shape
    pixels = _group_norm(self.dtype, 'group_norm')(x).reshape(batch_size, -1, features)
    # its statistics are over all tokens of a text, padding included
    tokens = _group_norm(self.dtype, 'norm_cross')(tokens)
    project = lambda name, y: split_heads(
      dense(features, dtype=self.dtype, name=name)(y), features // self.head_size
    )
    keys, values = project('add_k_proj', tokens), project('add_v_proj', tokens)
    if not self.only_cross:
      keys = jnp.concatenate([keys, project('to_k', pixels)], axis=1)
      values = jnp.concatenate([values, project('to_v', pixels)], axis=1)
    out = attend(project('to_q', pixels), keys, values)
    out = dense(features, zero=True, dtype=self.dtype, name='to_out_0')(out.reshape(batch_size, -1, features))
    return x + out.reshape(x.shape)


def _group_norm(dtype: DTypeLike, name: str) -> GroupNorm:
  return GroupNorm(_NUM_GROUPS, _EPSILON, dtype, name=name)


def _layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=_EPSILON, dtype=dtype, name=name)
