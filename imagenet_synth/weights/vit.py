"""Reads weights that timm, or DINOv2's own program, has written for vision transformers, for `models.vit`."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from imagenet_synth.models.vit import ViT
from imagenet_synth.weights.tensors import Kind, Param, ParamPath, load_tree, open_tensors, torch_param

_CONVERT = 'safetensors.torch.save_file(torch.load(old, weights_only=True), new)'
_MODULES = {
  'attention_norm': 'norm1',
  'out': 'attn.proj',
  'mlp_norm': 'norm2',
  'mlp_in': 'mlp.fc1',
  'mlp_out': 'mlp.fc2',
  'patches': 'patch_embed.proj',
}
_PROJECTIONS = ('query', 'key', 'value')
# the layers of a block that a LayerScale follows, by its name
_SCALED = {'ls1': ('attention', 'out'), 'ls2': ('mlp_out',)}
# side of the grid of patches that DINOv2 was trained on last: 518 pixels
_DINOV2_SIDE = 37
# of the cubic interpolation that PyTorch has
_CUBIC = -0.75


def load(path: str | epath.Path, model: ViT, size: int) -> dict[str, Any]:
  """Returns the variables of a ViT for images of `size`: a tree of float32 numpy arrays.

  Args:
    path: safetensors or npz with timm's names.
    model: the network.
    size: height and width of the images that the weights are for.

  Raises:
    InputError: nothing that can be read is there, it is a pickle, or a tensor is missing, unexpected
      or of a wrong shape; the message names it.
  """
  kind = Kind('a ViT of this size', _CONVERT)
  return {
    'params': load_tree(epath.Path(path), open_tensors(epath.Path(path), kind), _stored(model, size), kind)
  }


def load_dinov2(path: str | epath.Path, model: ViT, size: int) -> dict[str, Any]:
  """Returns the variables of a DINOv2 ViT (Oquab et al., 2023), without a head: float32 numpy arrays.

  LayerScale, a factor for each channel of a branch, is folded into the branch's last layer, and the positions
  are interpolated to images of `size`, as DINOv2's own program does it.

  Args:
    path: safetensors or npz with the names of timm or of DINOv2's own program.
    model: the network.
    size: height and width of the images.

  Raises:
    InputError: as `load`.
  """
  path, kind = epath.Path(path), Kind('a DINOv2 ViT of this size without registers', _CONVERT)
  tensors = open_tensors(path, kind)
  # what stands for a patch that is hidden, in training only
  tensors.pop('mask_token', None)
  # shapes need a head, the file has none
  stored = _stored(model.clone(num_classes=1), model.patch_size * _DINOV2_SIDE)
  wanted = {p: param for p, param in stored.items() if p[0] != 'head'}
  blocks = [f'block_{i}' for i in range(model.depth)]
  wanted |= {
    (block, scale): Param(f'blocks.{i}.{scale}.gamma', ((model.width,),))
    for i, block in enumerate(blocks)
    for scale in _SCALED
  }
  flat = traverse_util.flatten_dict(load_tree(path, tensors, wanted, kind))
  for block in blocks:
    for scale, layer in _SCALED.items():
      factor = flat.pop((block, scale))
      for leaf in ('kernel', 'bias'):
        flat[block, *layer, leaf] = flat[block, *layer, leaf] * factor
  flat['positions',] = _dinov2_positions(flat['positions',], size // model.patch_size)
  return {'params': traverse_util.unflatten_dict(flat)}


def _stored(model: ViT, size: int) -> dict[ParamPath, Param]:
  """Returns how each parameter of a ViT is stored."""
  x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  abstract = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)
  leaves = traverse_util.flatten_dict(nn.unbox(abstract)['params'])
  return {path: _stored_as(path, leaf.shape) for path, leaf in leaves.items()}


def _stored_as(path: ParamPath, shape: tuple[int, ...]) -> Param:
  if len(path) == 1:
    return Param({'class_token': 'cls_token', 'positions': 'pos_embed'}[path[0]], (shape,))
  block = f'blocks.{path[0].removeprefix("block_")}.' if path[0].startswith('block_') else ''
  module, leaf = path[-2], 'bias' if path[-1] == 'bias' else 'weight'
  if module in _PROJECTIONS:
    number = _PROJECTIONS.index(module)
    return Param(
      f'{block}attn.qkv.{leaf}', ((3 * shape[-1], *shape[:-1]),), lambda a: np.split(a, 3)[number].T
    )
  return torch_param(path, shape, f'{block}{_MODULES.get(module, module)}.{leaf}')


def _dinov2_positions(positions: np.ndarray, side: int) -> np.ndarray:
  """Returns positions [1, 1 + n, D] for a grid of side x side patches: [1, 1 + side^2, D].

  They are interpolated bicubically, without antialiasing, and a tenth of a patch is added to the side that
  coordinates are scaled by, as in DINOv2's program; beyond the edge the outermost are repeated.
  """
  old = math.isqrt(positions.shape[1] - 1)
  if old == side:
    return positions
  places = (np.arange(side) + 0.5) * old / (side + 0.1) - 0.5
  low = np.floor(places).astype(int)
  matrix = np.zeros((side, old))
  for offset in range(-1, 3):
    weights = _cubic(np.abs(places - (low + offset)))
    np.add.at(matrix, (np.arange(side), np.clip(low + offset, 0, old - 1)), weights)
  grid = positions[0, 1:].reshape(old, old, -1)
  resized = np.einsum('ih,hwd,jw->ijd', matrix, grid, matrix, optimize=True).astype(np.float32)
  return np.concatenate([positions[:, :1], resized.reshape(1, side * side, -1)], axis=1)


def _cubic(distance: np.ndarray) -> np.ndarray:
  """Returns the weight of a pixel at a distance below 2 (Keys, 1981, equation 4, with a = -3/4)."""
  near = (_CUBIC + 2) * distance**3 - (_CUBIC + 3) * distance**2 + 1
  far = _CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
  return np.where(distance <= 1, near, far)
