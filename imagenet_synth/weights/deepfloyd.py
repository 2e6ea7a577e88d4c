"""Reads DeepFloyd IF's published U-Nets (safetensors of `UNet2DConditionModel`) for `models.deepfloyd`."""

import json
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath
from flax import traverse_util

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.weights.tensors import Kind, ParamPath, load_tree, open_tensors, torch_param

_KIND = Kind(
  'a DeepFloyd IF U-Net', 'diffusers.UNet2DConditionModel.from_pretrained(folder).save_pretrained(new_folder)'
)

# the choices of config.json that `IFUNet` has made for good; the others are its fields
_FIXED = {
  'act_fn': 'gelu',
  'addition_embed_type': 'text',
  'cross_attention_norm': 'group_norm',
  'encoder_hid_dim_type': 'text_proj',
  'flip_sin_to_cos': True,
  'freq_shift': 0,
  'norm_num_groups': 32,
  'resnet_time_scale_shift': 'scale_shift',
  'center_input_sample': False,
}


def network_fields(path: str | epath.Path) -> dict[str, Any]:
  """Returns the fields of `IFUNet` that the config.json beside the weights describes.

  Args:
    path: the config.json, or the folder that holds it.

  Raises:
    InputError: no such file, or a network of another kind; the message names the key.
  """
  path = epath.Path(path)
  path = path / 'config.json' if path.is_dir() else path
  try:
    config = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise InputError(f'{path}: no config.json of {_KIND.name}: {error}') from error
  for key, value in _FIXED.items():
    if config.get(key, value) != value:
      raise InputError(f'{path}: {key} is {config[key]!r}, of {_KIND.name} it is {value!r}')
  try:
    channels, layers = tuple(config['block_out_channels']), config['layers_per_block']
    return dict(
      channels=channels,
      layers_per_block=(layers,) * len(channels) if isinstance(layers, int) else tuple(layers),
      attention=tuple('CrossAttn' in kind for kind in config['down_block_types']),
      cross_attention_size=config['cross_attention_dim'],
      head_size=config['attention_head_dim'],
      pool_heads=config['addition_embed_type_num_heads'],
      only_cross_attention=config['only_cross_attention'],
    )
  except KeyError as error:
    raise InputError(f'{path}: no key {error} in config.json of {_KIND.name}') from error


def load(path: str | epath.Path, network: IFUNet, in_channels: int, text_size: int) -> dict[str, Any]:
  """Returns the parameters of `network`, a tree of float32 numpy arrays.

  Args:
    path: a safetensors file; or a folder with one, or with shards and their index.
    network: what the parameters are for.
    in_channels: 3 for stage I, 6 for stage II.
    text_size: width of the text encoder's states.

  Raises:
    InputError: nothing that can be read is there, it is a pickle, or a tensor is missing, unexpected
      or of a wrong shape; the message names it.
  """
  path = epath.Path(path)
  image = jnp.zeros((1, 64, 64, 3))
  level = jnp.zeros((1,))
  low_res = (image, level) if in_channels == 6 else ()
  abstract = jax.eval_shape(
    network.init, jax.random.key(0), image, level, jnp.zeros((1, 1, text_size)), *low_res
  )['params']
  params = {
    p: torch_param(p, leaf.shape, _name(p))
    for p, leaf in traverse_util.flatten_dict(nn.unbox(abstract)).items()
  }
  return load_tree(path, open_tensors(path, _KIND), params, _KIND)


def _name(path: ParamPath) -> str:
  """Returns the name of a parameter's tensor, where dots set off the numbers of PyTorch's module lists."""
  *modules, leaf = path
  name = '.'.join(modules)
  name = re.sub(r'^(down_blocks|up_blocks)_(\d+)_', r'\1.\2.', name)
  name = re.sub(r'^mid_block_', 'mid_block.', name)
  name = re.sub(r'(resnets|attentions|samplers|to_out)_(\d+)', r'\1.\2', name)
  return f'{name}.{ {"kernel": "weight", "scale": "weight"}.get(leaf, leaf) }'
