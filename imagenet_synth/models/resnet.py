"""ResNet classifiers (He et al., 2016), in the variant v1.5 that papers compare with, and ResNet-RS.

v1.5 has the stride of a bottleneck in its 3x3 convolution, where the paper has it in the first 1x1.
ResNet-RS (Bello et al., 2021) adds a deep stem, pooling in the shortcuts, squeeze-and-excitation,
dropout and stochastic depth.

Convolutions run in `dtype`; parameters, the norms' arithmetic, features and logits are float32.
Parameters carry logical axis names; `core/devices.py` says how these are laid over devices.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagenet_synth.core.config import Count, NonNegative, NonNegativeInt, NotEmpty, Rate
from imagenet_synth.core.gathering import named
from imagenet_synth.models.convolution import convolve, max_pool
from imagenet_synth.models.network import DType
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.pixels import Pixels, seen

_BOTTLENECK_EXPANSION = 4

_fan_in_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class _Start(NamedTuple):
  """What weights start from."""

  # of convolutions
  conv: nn.initializers.Initializer
  # of the last layer
  head: nn.initializers.Initializer
  # whether the last norm of each block scales by 0, so that blocks start as their shortcut
  zero_branches: bool


_STARTS = {
  'goyal': _Start(
    nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'), nn.initializers.normal(stddev=0.01), True
  ),
  'fan_in': _Start(_fan_in_init, _fan_in_init, False),
}


def conv(features: int, kernel_size: int, stride: int = 1, *, start: str, dtype: str, name: str) -> nn.Conv:
  """Returns a convolution without bias.

  Its padding is the same on all sides: 'SAME' would, at stride 2 and even sizes, pad only the far
  ones and not agree with the published weights.
  """
  return nn.Conv(
    features,
    (kernel_size, kernel_size),
    (stride, stride),
    padding=kernel_size // 2,
    use_bias=False,
    dtype=dtype,
    name=name,
    conv_general_dilated=convolve,
    kernel_init=named(_STARTS[start].conv, (None, None, 'conv_in', 'conv_out'), dtype),
  )


def batch_norm(x: jax.Array, *, train: bool, dtype: str, name: str, zero: bool = False) -> jax.Array:
  """Returns x [..., C], normalized by the batch (`train`) or by the running mean and variance.

  Under `jax.jit` with the batch sharded over devices, the mean is that of the global batch: to the
  program it is one array, and the compiler adds the reduction. `zero` starts the scale at 0.
  """
  scale_init = nn.initializers.zeros_init() if zero else nn.initializers.ones_init()
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    dtype=dtype,
    name=name,
    scale_init=named(scale_init, (None,)),
    bias_init=named(nn.initializers.zeros_init(), (None,)),
  )(x)


_ACTIVATIONS = {'relu': nn.relu, 'swish': nn.swish}


class Branch(NamedTuple):
  """What ResNet-RS changes of a block."""

  # as in `ResNet`
  squeeze_ratio: float
  # probability that the block's branch is dropped
  drop_path_rate: float
  # as in `ResNet`
  pooled_shortcut: bool
  # as in `ResNet`
  activation: str
  # as in `ResNet`
  start: str


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and the shortcut; x [B, H, W, C] -> [B, H/stride, W/stride, features]."""

  features: int
  stride: int
  branch: Branch
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = functools.partial(batch_norm, train=train, dtype=self.dtype)
    layer = functools.partial(conv, start=self.branch.start, dtype=self.dtype)
    h = layer(self.features, 3, self.stride, name='conv_1')(x)
    h = _ACTIVATIONS[self.branch.activation](norm(h, name='norm_1'))
    h = layer(self.features, 3, name='conv_2')(h)
    h = norm(h, name='norm_2', zero=_STARTS[self.branch.start].zero_branches)
    return _joined(self, x, h, norm, train)


class BottleneckBlock(nn.Module):
  """1x1, 3x3, 1x1 and the shortcut; x [B, H, W, C] -> [B, H/stride, W/stride, 4 * features]."""

  features: int
  stride: int
  branch: Branch
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = functools.partial(batch_norm, train=train, dtype=self.dtype)
    layer = functools.partial(conv, start=self.branch.start, dtype=self.dtype)
    out_features = self.features * _BOTTLENECK_EXPANSION
    h = layer(self.features, 1, name='conv_1')(x)
    h = _ACTIVATIONS[self.branch.activation](norm(h, name='norm_1'))
    h = layer(self.features, 3, self.stride, name='conv_2')(h)
    h = _ACTIVATIONS[self.branch.activation](norm(h, name='norm_2'))
    h = layer(out_features, 1, name='conv_3')(h)
    h = norm(h, name='norm_3', zero=_STARTS[self.branch.start].zero_branches)
    return _joined(self, x, h, norm, train)


def _joined(
  block: BasicBlock | BottleneckBlock, x: jax.Array, h: jax.Array, norm: Callable[..., jax.Array], train: bool
) -> jax.Array:
  """Returns branch h and input x, added: the end of both kinds of blocks. Makes submodules of the block."""
  branch = block.branch
  if branch.squeeze_ratio:
    h = h * _excitation(h, branch.squeeze_ratio)
  # One draw an image: a dropped branch is 0 for it, a kept one is scaled up (Huang et al., 2016).
  h = nn.Dropout(branch.drop_path_rate, broadcast_dims=(1, 2, 3), deterministic=not train)(h)
  return _ACTIVATIONS[branch.activation](h + _shortcut(block, x, h.shape[-1], norm))


def _shortcut(
  block: BasicBlock | BottleneckBlock, x: jax.Array, features: int, norm: Callable[..., jax.Array]
) -> jax.Array:
  """Returns the input, projected where the block changes its shape."""
  if block.stride == 1 and x.shape[-1] == features:
    return x
  stride = block.stride
  if block.branch.pooled_shortcut and stride > 1:
    # at uneven sizes a window reaches over the edge; what is outside does not count
    x, stride = nn.avg_pool(x, (2, 2), (2, 2), padding='SAME', count_include_pad=False), 1
  project = conv(features, 1, stride, start=block.branch.start, dtype=block.dtype, name='shortcut')
  return norm(project(x), name='shortcut_norm')


def _excitation(h: jax.Array, squeeze_ratio: float) -> jax.Array:
  """Returns a gate in (0, 1) for each channel of h [B, H, W, C]: [B, 1, 1, C] (Hu et al., 2018)."""

  def dense(features: int, axes: tuple[str, str], name: str) -> nn.Dense:
    return nn.Dense(
      features,
      dtype=h.dtype,
      name=name,
      kernel_init=named(nn.initializers.lecun_normal(), axes, h.dtype),
      bias_init=named(nn.initializers.zeros_init(), axes[1:]),
    )

  channels = h.shape[-1]
  s = h.mean(axis=(1, 2), keepdims=True)
  s = nn.relu(dense(round(channels * squeeze_ratio), ('conv_in', 'conv_out'), 'squeeze')(s))
  return nn.sigmoid(dense(channels, ('conv_in', 'conv_out'), 'excite')(s))


_BLOCKS = {'basic': BasicBlock, 'bottleneck': BottleneckBlock}


class ResNet(nn.Module):
  """A residual network.

  In training, `batch_stats` is a mutable collection, and drop path and dropout need the 'dropout' rng
  where they are above 0.
  """

  # blocks of each stage; each stage is at half the size and twice the width of the one before
  stage_sizes: Annotated[tuple[Count, ...], NotEmpty()]
  # classes of the last layer; 0 for as many as the data has
  num_classes: NonNegativeInt = 0
  # 'bottleneck' for networks of 50 layers and more
  block: Literal['basic', 'bottleneck'] = 'bottleneck'
  # channels of the first stage, before the bottleneck's expansion
  width: Count = 64
  # 'imagenet': 7x7 at stride 2, then a 3x3 max-pool at stride 2; 'deep' (ResNet-RS): four 3x3, the first and
  # the last at stride 2; 'small': one 3x3, for images of 8 to 64 pixels
  stem: Literal['imagenet', 'deep', 'small'] = 'imagenet'
  # stride of the small stem; 2 costs a fourth, and suits images from 16 pixels on
  stem_stride: Count = 1
  # width of squeeze-and-excitation relative to the channels; 0 for none
  squeeze_ratio: NonNegative = 0.0
  # shortcuts shrink by averaging, not by leaving out pixels
  pooled_shortcut: bool = False
  # what follows each norm and each sum, but not the squeeze
  activation: Literal['relu', 'swish'] = 'relu'
  # how pixels are normalised: 'symmetric' for [-1, 1], 'imagenet' by the mean and deviation of ImageNet's
  pixels: Pixels = 'symmetric'
  # probability that the last block's branch is dropped, rising linearly from 0 at the first (stochastic
  # depth)
  drop_path_rate: Rate = 0.0
  # probability of dropout of the features, before the last layer
  dropout_rate: Rate = 0.0
  # recompute blocks for the gradient instead of keeping what they computed: less memory, a third more time
  remat: bool = False
  # what weights start from: 'goyal', He's rule by fan-out, blocks that are their shortcut, and a last layer
  # near 0, for long training in large batches (Goyal et al., 2017, section 5.1); 'fan_in', uniform up to
  # 1 / sqrt(fan-in) as PyTorch's layers, from which a short training gets further
  start: Literal['goyal', 'fan_in'] = 'goyal'
  # what layers compute in; parameters, statistics and the head are float32
  dtype: DType = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> Outputs:
    """Returns logits and features, the pooled vector, of images x float32 [B, H, W, C] in [-1, 1]."""
    x = self._stem(seen(x, self.pixels), train)
    block_class = _BLOCKS[self.block]
    if self.remat:
      block_class = nn.remat(block_class, static_argnums=(2,))
    blocks = [(stage, i) for stage, num in enumerate(self.stage_sizes) for i in range(num)]
    for number, (stage, i) in enumerate(blocks):
      stride = 2 if stage > 0 and i == 0 else 1
      rate = self.drop_path_rate * number / max(len(blocks) - 1, 1)
      branch = Branch(self.squeeze_ratio, rate, self.pooled_shortcut, self.activation, self.start)
      block = block_class(self.width * 2**stage, stride, branch, self.dtype, name=f'stage_{stage}_block_{i}')
      x = block(x, train)
    features = x.astype(jnp.float32).mean(axis=(1, 2))
    head = nn.Dense(
      self.num_classes,
      name='head',
      kernel_init=named(_STARTS[self.start].head, ('embed', 'classes')),
      bias_init=named(nn.initializers.zeros_init(), ('classes',)),
    )
    dropped = nn.Dropout(self.dropout_rate, deterministic=not train)(features)
    return Outputs(head(dropped), features)

  def _stem(self, x: jax.Array, train: bool) -> jax.Array:
    def layer(x: jax.Array, features: int, kernel_size: int, stride: int, suffix: str = '') -> jax.Array:
      project = conv(features, kernel_size, stride, start=self.start, dtype=self.dtype, name=f'stem{suffix}')
      x = project(x)
      x = batch_norm(x, train=train, dtype=self.dtype, name=f'stem_norm{suffix}')
      return _ACTIVATIONS[self.activation](x)

    if self.stem == 'deep':
      half = self.width // 2
      for i, (features, stride) in enumerate(((half, 2), (half, 1), (self.width, 1), (self.width, 2))):
        x = layer(x, features, 3, stride, f'_{i}')
      return x
    if self.stem == 'small':
      return layer(x, self.width, 3, self.stem_stride)
    return max_pool(layer(x, self.width, 7, 2), stride=2, padding=1)


ResNet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3))
ResNet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3))
ResNet152 = functools.partial(ResNet, stage_sizes=(3, 8, 36, 3))

_ResNetRS = functools.partial(ResNet, stem='deep', squeeze_ratio=0.25, pooled_shortcut=True)
ResNetRS50 = functools.partial(_ResNetRS, stage_sizes=(3, 4, 6, 3))
ResNetRS101 = functools.partial(_ResNetRS, stage_sizes=(3, 4, 23, 3))
ResNetRS152 = functools.partial(_ResNetRS, stage_sizes=(3, 8, 36, 3))
