"""Reads the public weights of FID's Inception-v3 (`pt_inception-2015-12-05`) for `models.inception`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from imagenet_synth.models.inception import InceptionV3
from imagenet_synth.weights.tensors import Kind, Param, ParamPath, load_tree, open_tensors, torch_param

_KIND = Kind("FID's Inception-v3", 'safetensors.torch.save_file(torch.load(old, weights_only=True), new)')
# of the network's batch norms
_EPSILON = 1e-3


def load(path: str | epath.Path) -> dict[str, Any]:
  """Returns the parameters of `InceptionV3`, a tree of float32 numpy arrays.

  Batch norms are folded into the convolutions before them.

  Args:
    path: safetensors or npz with the names of the PyTorch port of TensorFlow's graph.

  Raises:
    InputError: nothing that can be read is there, it is a pickle, or a tensor is missing, unexpected
      or of a wrong shape; the message names it.
  """
  path = epath.Path(path)
  tensors = open_tensors(path, _KIND)
  abstract = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
  wanted: dict[ParamPath, Param] = {}
  for p, leaf in traverse_util.flatten_dict(abstract['params']).items():
    if p[-1] == 'kernel':
      wanted[p] = torch_param(p, leaf.shape, '.'.join((*p[:-1], 'weight')))
    elif p[-1] == 'fc_bias':
      wanted[p] = Param('fc.bias', (leaf.shape,))
    else:
      norm = '.'.join(p[:-2]) + '.bn'
      wanted |= {
        (*p[:-1], name): Param(f'{norm}.{name}', (leaf.shape,))
        for name in ('weight', 'bias', 'running_mean', 'running_var')
      }
  raw = traverse_util.flatten_dict(load_tree(path, tensors, wanted, _KIND))
  return traverse_util.unflatten_dict(
    {p: _folded(raw, p) for p in traverse_util.flatten_dict(abstract['params'])}
  )


def _folded(raw: dict[ParamPath, np.ndarray], path: ParamPath) -> np.ndarray:
  """Returns the kernel or the bias with which a convolution does what it and its batch norm do."""
  *module, leaf = path
  if (*module, 'running_var') not in raw:
    return raw[path]

  def get(name: str) -> np.ndarray:
    return raw[(*module, name)].astype(np.float64)

  gain = get('weight') / np.sqrt(get('running_var') + _EPSILON)
  folded = get('kernel') * gain if leaf == 'kernel' else get('bias') - get('running_mean') * gain
  return folded.astype(np.float32)
