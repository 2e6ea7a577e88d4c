"""The base network: the U-Net of Dhariwal & Nichol (2021) with Imagen's text conditioning."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.models.layers import Conditioning, conv, group_norm, rematerialised


class UNet(nn.Module):
  """Imagen, appendix F.1. The 64x64 model has channels 512, multiples (1, 2, 3, 4), 3 blocks a level.

  channels: width of the first level; channel_multiples: width of each level over it, each level at
  half the size of the one before; num_res_blocks: per level; attention_sizes: heights at which
  pixels attend to each other and to the text; head_size: channels per attention head; remat: recompute
  blocks on the way back instead of keeping what they computed.
  """

  channels: int
  channel_multiples: tuple[int, ...]
  num_res_blocks: int
  attention_sizes: tuple[int, ...]
  head_size: int = 64
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
    """x_t [B, H, W, C], logsnr [B], text [B, L, D] -> prediction float32 [B, H, W, C].

    low_res [B, H, W, C] (already upsampled and noised) and aug_logsnr [B] make it an SR network.
    """
    vector = Conditioning(4 * self.channels, self.dtype, name='conditioning')(logsnr, text, aug_logsnr)
    inputs = x_t if low_res is None else jnp.concatenate([x_t, low_res], axis=-1)
    x = conv(self.channels, dtype=self.dtype, name='conv_in')(inputs)

    block_class, attention_class = rematerialised(self.remat)

    def block(x, level, name, resample='none'):
      features = self.channels * self.channel_multiples[level]
      return block_class(features, resample, self.dropout, self.dtype, name=name)(x, vector, train)

    def attend(x, name):
      if x.shape[1] not in self.attention_sizes:
        return x
      features = x.shape[-1]
      return attention_class(max(features // self.head_size, 1), features, dtype=self.dtype, name=name)(
        x, text
      )

    skips = [x]
    last = len(self.channel_multiples) - 1
    for level in range(last + 1):
      for i in range(self.num_res_blocks):
        x = attend(block(x, level, f'down_{level}_{i}'), f'down_attention_{level}_{i}')
        skips.append(x)
      if level < last:
        x = block(x, level, f'down_{level}', 'down')
        skips.append(x)

    x = attend(block(x, last, 'middle_in'), 'middle_attention')
    x = block(x, last, 'middle_out')

    for level in reversed(range(last + 1)):
      for i in range(self.num_res_blocks + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = attend(block(x, level, f'up_{level}_{i}'), f'up_attention_{level}_{i}')
      if level > 0:
        x = block(x, level, f'up_{level}', 'up')

    x = nn.swish(group_norm(x.shape[-1], self.dtype, 'norm_out')(x))
    return conv(x_t.shape[-1], zero=True, name='conv_out')(x.astype(jnp.float32))
