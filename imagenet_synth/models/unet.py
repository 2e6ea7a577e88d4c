"""The base network: the U-Net of Dhariwal & Nichol (2021) with Imagen's text conditioning."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.core.config import Count, Invalid, NotEmpty, Rate
from imagenet_synth.models.layers import Conditioning, conv, group_norm, rematerialised
from imagenet_synth.models.network import DiffusionNetwork


class UNet(DiffusionNetwork):
  """The U-Net of Imagen's base (appendix F.1).

  The paper's 64x64 model has channels 512, multiples (1, 2, 3, 4) and 3 blocks a level.
  """

  # width of the first level
  channels: Count
  # width of each level over the first one's; each level is at half the size of the one before
  channel_multiples: Annotated[tuple[Count, ...], NotEmpty()]
  # residual blocks of a level on the way down, and one more on the way up
  num_res_blocks: Count
  # heights, in pixels, of the levels where pixels attend to each other and to the text
  attention_sizes: tuple[Count, ...]
  # channels of an attention head
  head_size: Count = 64
  # probability of dropout in residual blocks
  dropout: Rate = 0.0

  @property
  @nn.nowrap
  def size_divisor(self) -> int:
    """Returns what images' sizes must be multiples of: every level but the first halves the size."""
    return 2 ** (len(self.channel_multiples) - 1)

  @nn.nowrap
  def validate(self) -> None:
    """Raises `Invalid` if a level's channels don't divide into attention heads."""
    for multiple in self.channel_multiples:
      features = self.channels * multiple
      num_heads = max(features // self.head_size, 1)
      if features % num_heads:
        raise Invalid(
          'head_size', f'is {self.head_size}: {features} channels do not divide into {num_heads} heads'
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
    """Returns the prediction that the network is trained for, such as the noise: float32 [B, H, W, C].

    Args:
      x_t: [B, H, W, C], the noisy image.
      logsnr: [B], its noise level: log(alpha^2 / sigma^2).
      text: [B, L, D], with zeros at padding; all zeros for no text.
      low_res: [B, H, W, C], the image that an SR network enlarges, already upsampled and noised.
      aug_logsnr: [B], the noise level of `low_res`.
      train: whether dropout is on.
    """
    vector = Conditioning(4 * self.channels, self.dtype, name='conditioning')(logsnr, text, aug_logsnr)
    inputs = x_t if low_res is None else jnp.concatenate([x_t, low_res], axis=-1)
    x = conv(self.channels, dtype=self.dtype, name='conv_in')(inputs)

    block_class, attention_class = rematerialised(self.remat)

    def block(x: jax.Array, level: int, name: str, resample: str = 'none') -> jax.Array:
      features = self.channels * self.channel_multiples[level]
      return block_class(features, resample, self.dropout, self.dtype, name=name)(x, vector, train)

    def attend(x: jax.Array, name: str) -> jax.Array:
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
