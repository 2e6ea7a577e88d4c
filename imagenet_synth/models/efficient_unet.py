"""The super-resolution networks: Imagen's Efficient U-Net (appendix B.1)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.models.layers import Conditioning, conv, group_norm, rematerialised


class EfficientUNet(nn.Module):
  """Most blocks at low resolution; stride before the blocks going down, after them going up.

  channels, num_res_blocks: per level, each at half the size of the one before, the first already at
  half the image's. self_attention, text_attention: per level, whether its pixels attend to each
  other, and to the text. num_heads: of attention; its width is twice the level's channels. remat:
  recompute blocks on the way back instead of keeping what they computed.

  64->256: channels (128, 256, 512, 1024), num_res_blocks (2, 4, 8, 8), both kinds of attention at the
  last level; 256->1024 the same without self-attention (Imagen, F.2 and F.3).
  """

  channels: tuple[int, ...]
  num_res_blocks: tuple[int, ...]
  self_attention: tuple[bool, ...]
  text_attention: tuple[bool, ...]
  num_heads: int = 8
  dropout: float = 0.0
  remat: bool = False
  dtype: str = 'float32'

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
    """x_t, low_res [B, H, W, C], logsnr, aug_logsnr [B], text [B, L, D] -> float32 [B, H, W, C]."""
    vector = Conditioning(4 * self.channels[0], self.dtype, name='conditioning')(logsnr, text, aug_logsnr)
    inputs = x_t if low_res is None else jnp.concatenate([x_t, low_res], axis=-1)
    x = conv(self.channels[0], dtype=self.dtype, name='conv_in')(inputs)

    block_class, attention_class = rematerialised(self.remat)

    def blocks(x, level, name):
      for i in range(self.num_res_blocks[level]):
        x = block_class(
          self.channels[level], dropout=self.dropout, dtype=self.dtype, name=f'{name}_{level}_{i}'
        )(x, vector, train)
      if self.text_attention[level]:
        x = attention_class(
          self.num_heads,
          2 * self.channels[level],
          self.self_attention[level],
          self.dtype,
          name=f'{name}_attention_{level}',
        )(x, text)
      return x

    skips = [x]
    for level, features in enumerate(self.channels):
      x = conv(features, stride=2, dtype=self.dtype, name=f'down_{level}')(x)
      x = blocks(x, level, 'down')
      skips.append(x)

    for level in reversed(range(len(self.channels))):
      x = _join(x, skips.pop())
      x = blocks(x, level, 'up')
      # to the width of the level above first: the convolution is the costliest at the larger size
      features = self.channels[max(level - 1, 0)]
      x = conv(4 * features, kernel_size=3, dtype=self.dtype, name=f'up_{level}')(x)
      x = _depth_to_space(x)

    x = _join(x, skips.pop())
    x = nn.swish(group_norm(x.shape[-1], self.dtype, 'norm_out')(x))
    return conv(x_t.shape[-1], zero=True, name='conv_out')(x.astype(jnp.float32))


def _join(x: jax.Array, skip: jax.Array) -> jax.Array:
  return jnp.concatenate([x, skip / math.sqrt(2)], axis=-1)


def _depth_to_space(x: jax.Array) -> jax.Array:
  """[B, H, W, 4C] -> [B, 2H, 2W, C]: what a convolution with stride 1/2 does."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, 2 * h, 2 * w, c // 4)
