"""Vision transformers: ViT (Dosovitskiy et al., 2021), and DeiT (Touvron et al., 2021) undistilled.

The two are one network; they differ in how it is trained. Matrix products run in `dtype`;
parameters, the norms' arithmetic, features and logits are float32. Parameters carry logical axis
names; `core/mesh.py` says how these are laid over devices.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.layers import layer_norm
from imagenet_synth.models.outputs import Outputs

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
    kernel_init=nn.with_logical_partitioning(_kernel_init, axes),
    bias_init=nn.with_logical_partitioning(_zeros, axes[1:]),
  )


class Attention(nn.Module):
  """Tokens [B, N, D] attend to each other. The 'heads' axis of a kernel is heads x head size."""

  num_heads: int
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch_size, num_tokens, width = x.shape

    def heads(name):
      projected = _dense(width, ('embed', 'heads'), self.dtype, name)(x)
      return projected.reshape(batch_size, num_tokens, self.num_heads, width // self.num_heads)

    out = jax.nn.dot_product_attention(heads('query'), heads('key'), heads('value'))
    return _dense(width, ('heads', 'embed'), self.dtype, 'out')(out.reshape(x.shape))


class Block(nn.Module):
  """Pre-norm attention and MLP on tokens [B, N, D], each dropped whole at `drop_path_rate`."""

  num_heads: int
  mlp_ratio: int
  drop_path_rate: float
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    # One draw an image: a dropped branch is 0 for it, a kept one is scaled up (Huang et al., 2016).
    drop_path = functools.partial(
      nn.Dropout, self.drop_path_rate, broadcast_dims=(1, 2), deterministic=not train
    )
    width = x.shape[-1]
    h = layer_norm(self.dtype, 'attention_norm')(x)
    x = x + drop_path()(Attention(self.num_heads, self.dtype, name='attention')(h))
    h = layer_norm(self.dtype, 'mlp_norm')(x)
    h = _dense(width * self.mlp_ratio, ('embed', 'mlp'), self.dtype, 'mlp_in')(h)
    h = nn.gelu(h, approximate=False)
    return x + drop_path()(_dense(width, ('mlp', 'embed'), self.dtype, 'mlp_out')(h))


class ViT(nn.Module):
  """A vision transformer with a class token and learned positions.

  patch_size: pixels a side; the image's size is a multiple of it, and stays what it was at init.
  width, depth, num_heads, mlp_ratio: of the transformer.
  drop_path_rate: of the last block, rising linearly from 0 at the first (stochastic depth).
    Above 0, training needs the 'dropout' rng.
  """

  patch_size: int
  width: int
  depth: int
  num_heads: int
  num_classes: int
  mlp_ratio: int = 4
  drop_path_rate: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> Outputs:
    """Classifies images x float32 [B, H, W, C] in [-1, 1]; the features are the class token."""
    if self.width % self.num_heads:
      raise InputError(f'vit width {self.width} is not divisible by num_heads {self.num_heads}')
    x = self._add_class_and_position(self._patches(x))
    for i in range(self.depth):
      rate = self.drop_path_rate * i / max(self.depth - 1, 1)
      x = Block(self.num_heads, self.mlp_ratio, rate, self.dtype, name=f'block_{i}')(x, train=train)
    features = layer_norm(jnp.float32, 'norm')(x[:, 0])
    logits = _dense(self.num_classes, ('embed', 'classes'), 'float32', 'head')(features)
    return Outputs(logits, features)

  def _patches(self, x: jax.Array) -> jax.Array:
    """Images [B, H, W, C] -> tokens [B, N, width], row by row."""
    batch_size, height, width, _ = x.shape
    if height % self.patch_size or width % self.patch_size:
      raise InputError(
        f'image of {height} x {width} pixels does not divide into patches of '
        f'{self.patch_size}; change image_size or patch_size'
      )
    size = (self.patch_size, self.patch_size)
    x = nn.Conv(
      self.width,
      size,
      size,
      padding='VALID',
      dtype=self.dtype,
      name='patches',
      kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), (None, None, None, 'embed')),
      bias_init=nn.with_logical_partitioning(_zeros, ('embed',)),
    )(x)
    return x.reshape(batch_size, -1, self.width)

  def _add_class_and_position(self, tokens: jax.Array) -> jax.Array:
    """Tokens [B, N, D] -> [B, 1 + N, D], the class token first."""
    batch_size, num_patches, _ = tokens.shape
    init = nn.with_logical_partitioning(_token_init, (None, None, 'embed'))
    class_token = self.param('class_token', init, (1, 1, self.width))
    positions = self.param('positions', init, (1, 1 + num_patches, self.width))
    class_token = jnp.tile(class_token, (batch_size, 1, 1)).astype(tokens.dtype)
    return jnp.concatenate([class_token, tokens], axis=1) + positions.astype(tokens.dtype)


ViT_S16 = functools.partial(ViT, patch_size=16, width=384, depth=12, num_heads=6)
ViT_B16 = functools.partial(ViT, patch_size=16, width=768, depth=12, num_heads=12)
ViT_L16 = functools.partial(ViT, patch_size=16, width=1024, depth=24, num_heads=16)


def resize_positions(positions: jax.Array, num_patches: int) -> jax.Array:
  """Positions [1, 1 + n, D] for images of another size: [1, 1 + num_patches, D].

  The grid of patches is resized bicubically, as DeiT does before it is fine-tuned at 384 pixels
  (Touvron et al., 2021, section 6); the class token keeps its own. Images are square.
  """
  class_position, grid = positions[:, :1], positions[:, 1:]
  old, new = math.isqrt(grid.shape[1]), math.isqrt(num_patches)
  if old == new:
    return positions
  grid = grid.reshape(1, old, old, -1)
  grid = jax.image.resize(grid, (1, new, new, grid.shape[-1]), 'bicubic', antialias=False)
  return jnp.concatenate([class_position, grid.reshape(1, new * new, -1)], axis=1)
