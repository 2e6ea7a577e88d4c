"""Vision transformers: ViT (Dosovitskiy et al., 2021) and DeiT (Touvron et al., 2021, not distilled).

The two are one network; they differ in how it is trained. `pooling` and `positions` make it the plain
baseline of Beyer et al. (2022). Matrix products run in `dtype`;
parameters, the norms' arithmetic, features and logits are float32. Parameters carry logical axis
names; `core/devices.py` says how these are laid over devices.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.core.config import Count, Invalid, NonNegativeInt, Rate
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.gathering import named
from imagenet_synth.models.layers import attend, gelu, layer_norm
from imagenet_synth.models.network import DType
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.pixels import Pixels, seen
from imagenet_synth.models.product import product

# Glorot's rule, as the ViT paper's own code has it: DeiT's constant 0.02 is near it at a width of
# 768 and far below it at 64, where a network would hardly start to learn.
_kernel_init = nn.initializers.xavier_uniform()
_token_init = nn.initializers.normal(stddev=0.02)
_zeros = nn.initializers.zeros_init()


def _dense(features: int, axes: tuple[str, str], dtype: str, name: str) -> nn.Dense:
  return nn.Dense(
    features,
    dtype=dtype,
    name=name,
    dot_general=product,
    kernel_init=named(_kernel_init, axes, dtype),
    bias_init=named(_zeros, axes[1:]),
  )


class Attention(nn.Module):
  """Tokens [B, N, D] attend to each other. The axis 'heads' of a kernel is heads times head size long."""

  num_heads: int
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch_size, num_tokens, width = x.shape

    def heads(name: str) -> jax.Array:
      projected = _dense(width, ('embed', 'heads'), self.dtype, name)(x)
      return projected.reshape(batch_size, num_tokens, self.num_heads, width // self.num_heads)

    out = attend(heads('query'), heads('key'), heads('value'))
    return _dense(width, ('heads', 'embed'), self.dtype, 'out')(out.reshape(x.shape))


class Block(nn.Module):
  """Pre-norm attention and MLP on tokens [B, N, D]."""

  num_heads: int
  # width of the hidden layer over that of a token
  mlp_ratio: int
  # probability that attention is dropped as a whole; the same for the MLP
  drop_path_rate: float
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    # One draw an image: a dropped branch is 0 for it, a kept one is scaled up (Huang et al., 2016).
    drop_path = functools.partial(
      nn.Dropout, self.drop_path_rate, broadcast_dims=(1, 2), deterministic=not train
    )
    width = x.shape[-1]
    h = layer_norm(self.dtype, 'attention_norm')(x)
    x = x + drop_path()(Attention(self.num_heads, self.dtype, name='attention')(h))
    h = layer_norm(self.dtype, 'mlp_norm')(x)
    h = _dense(width * self.mlp_ratio, ('embed', 'mlp'), self.dtype, 'mlp_in')(h)
    h = gelu(h)
    return x + drop_path()(_dense(width, ('mlp', 'embed'), self.dtype, 'mlp_out')(h))


class ViT(nn.Module):
  """A vision transformer.

  Images must be of the size that they had at `init`. In training, drop path needs the 'dropout' rng
  where it is above 0.
  """

  # height and width of a patch in pixels; the image's size is a multiple of it
  patch_size: Count
  # channels of a token
  width: Count
  # blocks
  depth: Count
  # attention heads of a block; they divide the width
  num_heads: Count
  # classes of the last layer; 0 for as many as the data has
  num_classes: NonNegativeInt = 0
  # width of a block's hidden layer over that of a token
  mlp_ratio: Count = 4
  # the features: those of a token that is put before those of the patches, or the mean over patches
  pooling: Literal['class_token', 'average'] = 'class_token'
  # what tells patches apart: parameters, or fixed waves, see `waves`
  positions: Literal['learned', 'waves'] = 'learned'
  # how pixels are normalised: 'symmetric' for [-1, 1], 'imagenet' by the mean and deviation of ImageNet's
  pixels: Pixels = 'symmetric'
  # probability that the last block's branches are dropped, rising linearly from 0 at the first (stochastic
  # depth)
  drop_path_rate: Rate = 0.0
  # recompute blocks for the gradient instead of keeping what they computed: less memory, a third more time
  remat: bool = False
  # what blocks compute in; parameters, norms and the head are float32
  dtype: DType = 'float32'

  @property
  @nn.nowrap
  def size_divisor(self) -> int:
    """Returns what images' sizes must be multiples of."""
    return self.patch_size

  @nn.nowrap
  def validate(self) -> None:
    """Raises `Invalid` if the heads don't divide the width, or waves don't fit it."""
    if self.width % self.num_heads:
      raise Invalid('num_heads', f'is {self.num_heads}, must divide the width {self.width}')
    if self.positions == 'waves' and (self.width % 4 or self.width < 8):
      raise Invalid('width', f"is {self.width}, must be a multiple of 4 from 8 on, as positions is 'waves'")

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> Outputs:
    """Returns logits and features [B, width] of images x float32 [B, H, W, C] in [-1, 1]."""
    x = self._with_class_and_positions(self._patches(seen(x, self.pixels)))
    block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    for i in range(self.depth):
      rate = self.drop_path_rate * i / max(self.depth - 1, 1)
      x = block(self.num_heads, self.mlp_ratio, rate, self.dtype, name=f'block_{i}')(x, train)
    if self.pooling == 'average':
      features = layer_norm(jnp.float32, 'norm')(x).mean(axis=1)
    else:
      features = layer_norm(jnp.float32, 'norm')(x[:, 0])
    logits = _dense(self.num_classes, ('embed', 'classes'), 'float32', 'head')(features)
    return Outputs(logits, features)

  def _patches(self, x: jax.Array) -> jax.Array:
    """Returns tokens [B, H / p, W / p, width] of images [B, H, W, C]."""
    _, height, width, _ = x.shape
    if height % self.patch_size or width % self.patch_size:
      raise InputError(
        f'image of {height} x {width} pixels does not divide into patches of '
        f'{self.patch_size}; change image_size or patch_size'
      )
    size = (self.patch_size, self.patch_size)
    return nn.Conv(
      self.width,
      size,
      size,
      padding='VALID',
      dtype=self.dtype,
      name='patches',
      kernel_init=named(nn.initializers.lecun_normal(), (None, None, None, 'embed'), self.dtype),
      bias_init=named(_zeros, ('embed',)),
    )(x)

  def _with_class_and_positions(self, patches: jax.Array) -> jax.Array:
    """Returns tokens [B, N, D] with positions added, row by row, the class token, if there is one, first."""
    batch_size, rows, columns, width = patches.shape
    tokens = patches.reshape(batch_size, -1, width)
    # not the box that this returns, as its type says: `param` opens it
    init: Callable[..., Any] = named(_token_init, (None, None, 'embed'), self.dtype)
    if self.positions == 'waves':
      tokens += waves(rows, columns, width)[None].astype(tokens.dtype)
    if self.pooling == 'class_token':
      class_token = self.param('class_token', init, (1, 1, width))
      class_token = jnp.tile(class_token, (batch_size, 1, 1)).astype(tokens.dtype)
      tokens = jnp.concatenate([class_token, tokens], axis=1)
    if self.positions == 'learned':
      tokens += self.param('positions', init, (1, tokens.shape[1], width)).astype(tokens.dtype)
    return tokens


def waves(rows: int, columns: int, width: int) -> jax.Array:
  """Returns fixed positions of a grid of patches, row by row: float32 [rows * columns, width].

  They are sine and cosine of the column, then of the row, at width / 4 frequencies from 1 to 1 / 10,000, even
  in the logarithm (Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers", 2021).
  """
  frequencies = 10_000 ** -jnp.linspace(0, 1, width // 4)
  row, column = jnp.divmod(jnp.arange(rows * columns), columns)
  x, y = jnp.outer(column, frequencies), jnp.outer(row, frequencies)
  return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=1)


ViT_S16 = functools.partial(ViT, patch_size=16, width=384, depth=12, num_heads=6)
ViT_B16 = functools.partial(ViT, patch_size=16, width=768, depth=12, num_heads=12)
ViT_L16 = functools.partial(ViT, patch_size=16, width=1024, depth=24, num_heads=16)


def resize_positions(positions: jax.Array, num_patches: int) -> jax.Array:
  """Returns positions [1, n, D] or [1, 1 + n, D] for images of another size: num_patches instead of n.

  The grid of patches is resized bicubically, as DeiT does before it is fine-tuned at 384 pixels
  (Touvron et al., 2021, section 6); a class token keeps its own. Images are square.
  """
  side, new = math.isqrt(positions.shape[1]), math.isqrt(num_patches)
  # one more than a square: the first is the class token's
  num_others = positions.shape[1] - side**2
  first, grid = positions[:, :num_others], positions[:, num_others:]
  if side == new:
    return positions
  grid = grid.reshape(1, side, side, -1)
  grid = jax.image.resize(grid, (1, new, new, grid.shape[-1]), 'bicubic', antialias=False)
  return jnp.concatenate([first, grid.reshape(1, new * new, -1)], axis=1)
