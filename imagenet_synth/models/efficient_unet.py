"""The super-resolution networks: Imagen's Efficient U-Net (appendix B.1)."""

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.core.config import Count, Invalid, NonNegativeInt, NotEmpty, Rate
from imagenet_synth.models.layers import Conditioning, conv, group_norm, rematerialised
from imagenet_synth.models.network import DiffusionNetwork


class EfficientUNet(DiffusionNetwork):
  """A U-Net with most of its blocks at low resolution.

  On the way down a level changes the size before its blocks, on the way up after them. Imagen's 64->256
  has channels (128, 256, 512, 1024), num_res_blocks (2, 4, 8, 8) and both kinds of attention at the last
  level; its 256->1024 is the same without self-attention (Imagen, F.2 and F.3).
  """

  # width of each level; each is at half the size of the one before, the first at half the image's
  channels: Annotated[tuple[Count, ...], NotEmpty()]
  # residual blocks of each level, on the way down and on the way up
  num_res_blocks: tuple[NonNegativeInt, ...]
  # whether the pixels of each level attend to each other; only where they attend to the text
  self_attention: tuple[bool, ...]
  # whether the pixels of each level attend to the text
  text_attention: tuple[bool, ...]
  # attention heads; their width together is twice the level's channels
  num_heads: Count = 8
  # probability of dropout in residual blocks
  dropout: Rate = 0.0

  @property
  @nn.nowrap
  def size_divisor(self) -> int:
    """Returns what images' sizes must be multiples of: every level halves the size."""
    return 2 ** len(self.channels)

  @nn.nowrap
  def validate(self) -> None:
    """Raises `Invalid` if the levels of the fields differ, or channels don't divide into attention heads."""
    self.require_per_level(len(self.channels), 'num_res_blocks', 'self_attention', 'text_attention')
    for features, attends in zip(self.channels, self.text_attention):
      if attends and 2 * features % self.num_heads:
        raise Invalid('num_heads', f'is {self.num_heads}, must divide {2 * features}')

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
    """Returns the prediction, float32 [B, H, W, C]; the arguments are those of `UNet`."""
    vector = Conditioning(4 * self.channels[0], self.dtype, name='conditioning')(logsnr, text, aug_logsnr)
    inputs = x_t if low_res is None else jnp.concatenate([x_t, low_res], axis=-1)
    x = conv(self.channels[0], dtype=self.dtype, name='conv_in')(inputs)

    block_class, attention_class = rematerialised(self.remat)

    def blocks(x: jax.Array, level: int, name: str) -> jax.Array:
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
      # narrowed to the level above before the size is doubled: afterwards a convolution costs more
      features = self.channels[max(level - 1, 0)]
      x = conv(4 * features, kernel_size=3, dtype=self.dtype, name=f'up_{level}')(x)
      x = _depth_to_space(x)

    x = _join(x, skips.pop())
    x = nn.swish(group_norm(x.shape[-1], self.dtype, 'norm_out')(x))
    return conv(x_t.shape[-1], zero=True, name='conv_out')(x.astype(jnp.float32))


def _join(x: jax.Array, skip: jax.Array) -> jax.Array:
  return jnp.concatenate([x, skip / math.sqrt(2)], axis=-1)


def _depth_to_space(x: jax.Array) -> jax.Array:
  """Returns [B, H, W, 4C] as [B, 2H, 2W, C]; a convolution before it has thus a stride of 1/2."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, 2 * h, 2 * w, c // 4)
