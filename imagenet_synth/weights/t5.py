"""Reads public T5 v1.1 and ByT5 weights, safetensors or T5X checkpoints, for `models.t5.T5Encoder`.

The sizes of the encoder are read off the shapes of the tensors; a config.json beside them is not
needed and not read. Only the encoder is taken: a decoder in the file is passed over.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from etils import epath
from flax import linen as nn
from flax import traverse_util

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import absolute, is_remote, matching
from imagenet_synth.models.t5 import T5Config, T5Encoder
from imagenet_synth.weights.tensors import Kind, Param, ParamPath, Tensor, load_tree, open_tensors

_KIND = Kind(
  'a T5 v1.1 or ByT5 encoder',
  'transformers.T5EncoderModel.from_pretrained(folder).save_pretrained(new_folder)',
)


class T5Weights(NamedTuple):
  """Sizes and parameters of an encoder: `T5Encoder(config).apply({'params': params}, ids, mask)`."""

  config: T5Config
  # a tree of numpy arrays, on the host: kernels of the dtype that was asked for, the rest float32
  params: dict[str, Any]


class _Format(NamedTuple):
  """How a foreign format names and lays out the parameters."""

  # returns the name of a parameter's tensor
  name_fn: Callable[[ParamPath], str]
  # regular expression for the names of a layer's tensors, the layer's number in a group
  layer_pattern: str
  # matrices are [out, in] there, except for the embedding
  transposed: bool


def load(path: str | epath.Path, config: T5Config | None = None, dtype: str = 'float32') -> T5Weights:
  """Returns the encoder's weights from what is at `path`.

  Args:
    path: a safetensors file; a folder with one, or with shards and their index; or a T5X checkpoint
      folder (`checkpoint_<step>`).
    config: the sizes that are expected. None takes the sizes from the shapes of the tensors, and
      cannot see that the last layers are not there.
    dtype: what kernels are rounded to, each as soon as it is read. Where it is what the encoder computes in,
      its states are the same as with float32 ones. The embedding, scales and biases, 3 % of the weights of
      XXL, stay float32, as the encoder's stream is.

  Raises:
    InputError: nothing that can be read is there, the file is a pickle, or a tensor is missing,
      unexpected or of a wrong shape; the message names it.
  """
  path = epath.Path(path)
  if path.is_dir() and matching(path, 'target.*'):
    return load_t5x(path, config, dtype)
  return load_safetensors(path, config, dtype)


def load_safetensors(
  path: str | epath.Path, config: T5Config | None = None, dtype: str = 'float32'
) -> T5Weights:
  """Returns weights stored under the names of Hugging Face's `T5EncoderModel`; otherwise as `load`."""
  path = epath.Path(path)
  tensors: dict[str, Tensor] = {}
  for name, tensor in open_tensors(path, _KIND).items():
    # The embedding under its other name: the two are tied, and some files hold only this one.
    if name == 'encoder.embed_tokens.weight':
      tensors.setdefault('shared.weight', tensor)
    elif not name.startswith(('decoder.', 'lm_head.')):
      tensors[name] = tensor
  hugging_face = _Format(_hugging_face_name, r'encoder\.block\.(\d+)\.', transposed=True)
  return _convert(path, tensors, hugging_face, config, dtype)


def load_t5x(path: str | epath.Path, config: T5Config | None = None, dtype: str = 'float32') -> T5Weights:
  """Returns the weights of a checkpoint folder that T5X wrote; otherwise as `load`."""
  path = epath.Path(path)
  folders = [*matching(path, 'target.encoder.*'), *matching(path, 'target.token_embedder.*')]
  tensors = {folder.name: _t5x_tensor(folder) for folder in folders}
  t5x = _Format(_t5x_name, r'target\.encoder\.layers_(\d+)\.', transposed=False)
  return _convert(path, tensors, t5x, config, dtype)


_HUGGING_FACE_LAYER = {
  'pre_attention_layer_norm.scale': 'layer.0.layer_norm',
  'attention.query.kernel': 'layer.0.SelfAttention.q',
  'attention.key.kernel': 'layer.0.SelfAttention.k',
  'attention.value.kernel': 'layer.0.SelfAttention.v',
  'attention.out.kernel': 'layer.0.SelfAttention.o',
  'pre_mlp_layer_norm.scale': 'layer.1.layer_norm',
  'mlp.wi_0.kernel': 'layer.1.DenseReluDense.wi_0',
  'mlp.wi_1.kernel': 'layer.1.DenseReluDense.wi_1',
  'mlp.wo.kernel': 'layer.1.DenseReluDense.wo',
}
_HUGGING_FACE_SHARED = {
  'token_embedder': 'shared.weight',
  'relpos_bias': 'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
  'encoder_norm': 'encoder.final_layer_norm.weight',
}


def _hugging_face_name(path: ParamPath) -> str:
  if path[0] in _HUGGING_FACE_SHARED:
    return _HUGGING_FACE_SHARED[path[0]]
  index = path[0].removeprefix('layers_')
  return f'encoder.block.{index}.{_HUGGING_FACE_LAYER[".".join(path[1:])]}.weight'


def _t5x_name(path: ParamPath) -> str:
  prefix = 'target' if path[0] == 'token_embedder' else 'target.encoder'
  return '.'.join((prefix, *path))


def _convert(
  source: epath.Path, tensors: Mapping[str, Tensor], fmt: _Format, config: T5Config | None, dtype: str
) -> T5Weights:
  if config is None:
    config = _config_from_shapes(source, tensors, fmt)
  params = {
    path: _param(path, shape, fmt)._replace(dtype=dtype if path[-1] == 'kernel' else 'float32')
    for path, shape in _param_shapes(config).items()
  }
  return T5Weights(config, load_tree(source, tensors, params, _KIND))


def _param_shapes(config: T5Config) -> dict[ParamPath, tuple[int, ...]]:
  ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
  variables = jax.eval_shape(T5Encoder(config).init, jax.random.key(0), ids, mask)
  params = traverse_util.flatten_dict(nn.unbox(variables['params']))
  return {path: param.shape for path, param in params.items()}


def _param(path: ParamPath, shape: tuple[int, ...], fmt: _Format) -> Param:
  """Returns how the parameter `path` of this shape, as it is in Flax, is stored."""
  # On disk heads are joined with their width, and PyTorch transposes all but the embedding.
  transposed = fmt.transposed and path[0] != 'token_embedder'
  stored = shape
  if len(shape) == 3:
    split = 2 if path[-2] == 'out' else 1
    stored = (math.prod(shape[:split]), math.prod(shape[split:]))
  # T5X has also written kernels with heads apart, which is the order of the Flax tree.
  shapes = (stored[::-1] if transposed else stored,) + (() if fmt.transposed else (shape,))

  def to_flax(array: np.ndarray) -> np.ndarray:
    return (array.T if transposed else array).reshape(shape)

  return Param(fmt.name_fn(path), shapes, to_flax)


def _config_from_shapes(source: epath.Path, tensors: Mapping[str, Tensor], fmt: _Format) -> T5Config:
  """Returns the sizes, from the embedding, the position bias and the first layer's query and gate."""

  def matrix_shape(*path: str) -> tuple[int, int]:
    name = fmt.name_fn(path)
    if name not in tensors:
      raise InputError(f'{source}: tensor {name} of {_KIND.name} is missing')
    shape = tensors[name].shape
    if len(shape) < 2:
      raise InputError(f'{source}: tensor {name} has shape {shape}, expected a matrix')
    shape = (shape[0], math.prod(shape[1:]))
    return shape[::-1] if fmt.transposed and path[0] != 'token_embedder' else shape

  layers = [match[1] for name in tensors if (match := re.match(fmt.layer_pattern, name))]
  vocab_size, width = matrix_shape('token_embedder', 'embedding')
  num_heads, num_buckets = matrix_shape('relpos_bias', 'rel_embedding')
  query_path = ('layers_0', 'attention', 'query', 'kernel')
  _, query_size = matrix_shape(*query_path)
  _, mlp_size = matrix_shape('layers_0', 'mlp', 'wi_0', 'kernel')
  if query_size % num_heads:
    name = fmt.name_fn(query_path)
    raise InputError(f'{source}: tensor {name} has {query_size} outputs, not divisible by {num_heads} heads')
  num_layers = 1 + max(map(int, layers))
  head_size = query_size // num_heads
  return T5Config(vocab_size, width, num_layers, num_heads, head_size, mlp_size, num_buckets)


def _t5x_tensor(folder: epath.Path) -> Tensor:
  spec = {
    'driver': 'zarr',
    'kvstore': f'{folder}/' if is_remote(folder) else {'driver': 'file', 'path': str(absolute(folder))},
    # By default a chunk that was not copied would read as zeros.
    'fill_missing_data_reads': False,
  }
  try:
    store = ts.open(spec, open=True, read=True).result()
  except ValueError as error:
    raise InputError(f'{folder}: not a zarr array as T5X writes it') from error
  return Tensor(tuple(store.shape), functools.partial(_read_t5x, folder, store))


def _read_t5x(folder: epath.Path, store: ts.TensorStore) -> np.ndarray:
  try:
    return store.read().result()
  except ValueError as error:
    raise InputError(f'{folder}: tensor is not whole, copy the checkpoint again') from error
