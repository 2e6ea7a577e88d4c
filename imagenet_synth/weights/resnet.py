"""Reads weights that timm has written for ResNets and ResNet-RSs, for `models.resnet`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath
from flax import traverse_util

from imagenet_synth.models.resnet import ResNet
from imagenet_synth.weights.tensors import Kind, Param, ParamPath, load_tree, open_tensors, torch_param

_KIND = Kind('a ResNet of this size', 'safetensors.torch.save_file(torch.load(old, weights_only=True), new)')
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
_OUTSIDE = {
  'stem': 'conv1',
  'stem_norm': 'bn1',
  'head': 'fc',
  # those of a deep stem
  'stem_0': 'conv1.0',
  'stem_norm_0': 'conv1.1',
  'stem_1': 'conv1.3',
  'stem_norm_1': 'conv1.4',
  'stem_2': 'conv1.6',
  'stem_norm_2': 'bn1',
  'stem_3': 'maxpool.0',
  'stem_norm_3': 'maxpool.1',
}
_IN_BLOCK = {'squeeze': 'se.fc1', 'excite': 'se.fc2'}


def load(path: str | epath.Path, model: ResNet) -> dict[str, Any]:
  """Returns the variables of a ResNet: a tree of float32 numpy arrays.

  Args:
    path: safetensors or npz with timm's names.
    model: the network; its stem is not small.

  Raises:
    InputError: nothing that can be read is there, it is a pickle, or a tensor is missing, unexpected
      or of a wrong shape; the message names it.
  """
  path = epath.Path(path)
  tensors = open_tensors(path, _KIND)
  x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  abstract = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)
  leaves = traverse_util.flatten_dict(nn.unbox(abstract))
  wanted = {p: _stored_as(p, leaf.shape, model.pooled_shortcut) for p, leaf in leaves.items()}
  return load_tree(path, tensors, wanted, _KIND)


def _stored_as(path: ParamPath, shape: tuple[int, ...], pooled_shortcut: bool) -> Param:
  *_, module, leaf = path
  name = f'{_module(path[1:-1], pooled_shortcut)}.{_LEAVES[leaf]}'
  if module in _IN_BLOCK and leaf == 'kernel':
    # 1x1 convolutions there, products here
    return Param(name, ((*shape[::-1], 1, 1),), lambda a: a[:, :, 0, 0].T)
  return torch_param(path, shape, name)


def _module(path: ParamPath, pooled_shortcut: bool) -> str:
  """Returns what a layer is called by timm."""
  if len(path) == 1:
    return _OUTSIDE[path[0]]
  (_, stage, _, number), layer = path[0].split('_'), path[1]
  if layer.startswith('shortcut'):
    # with pooling in the shortcut, its layers are one further
    layer = f'downsample.{pooled_shortcut + (layer == "shortcut_norm")}'
  else:
    layer = _IN_BLOCK.get(layer, layer.replace('norm_', 'bn').replace('conv_', 'conv'))
  return f'layer{int(stage) + 1}.{number}.{layer}'
