"""Public T5 v1.1 and ByT5 weights, as safetensors or as T5X checkpoints, to `models.t5.T5Encoder`.

The sizes of the encoder are read off the shapes of the tensors; a config.json beside them is not
needed and not read. Only the encoder is taken: a decoder in the file is passed over.
"""

from collections.abc import Callable, Mapping
import functools
import json
import math
from pathlib import Path
import re
from typing import NamedTuple

from flax import linen as nn, traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import tensorstore as ts

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.t5 import T5Config, T5Encoder

PICKLE_SUFFIXES = ('.bin', '.ckpt', '.pkl', '.pt', '.pth')
INDEX_NAME = 'model.safetensors.index.json'

# A parameter's path in the Flax tree. It is T5X's own path but for the leading 'encoder'.
ParamPath = tuple[str, ...]


class T5Weights(NamedTuple):
  """Sizes and parameters: `T5Encoder(config).apply({'params': params}, ids, mask)`.

  params: the tree of float32 numpy arrays, on the host.
  """

  config: T5Config
  params: dict


class _Tensor(NamedTuple):
  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


class _Format(NamedTuple):
  """How a foreign format names and lays out the parameters."""

  name_fn: Callable[[ParamPath], str]
  layer_pattern: str
  transposed: bool


def load(path: str | Path, config: T5Config | None = None) -> T5Weights:
  """Encoder weights from whatever lies at `path`.

  Args:
    path: a safetensors file; a folder with one, or with shards and their index; or a T5X checkpoint
      folder (`checkpoint_<step>`).
    config: the sizes that are expected. None takes the sizes from the shapes of the tensors, and
      cannot see that the last layers are not there.

  Raises:
    InputError: nothing that can be read is there, the file is a pickle, or a tensor is missing,
      unexpected or of a wrong shape; the message names it.
  """
  path = Path(path)
  if not path.exists():
    raise InputError(f'{path}: T5 weights do not exist')
  if path.is_dir() and any(path.glob('target.*')):
    return load_t5x(path, config)
  return load_safetensors(path, config)


def load_safetensors(path: str | Path, config: T5Config | None = None) -> T5Weights:
  """Weights under the names of Hugging Face's `T5EncoderModel`; arguments and errors as `load`."""
  path = Path(path)
  tensors = {}
  for name, file in _safetensors_files(path).items():
    # The embedding under its other name: the two are tied, and some files hold only this one.
    if name == 'encoder.embed_tokens.weight':
      tensors.setdefault('shared.weight', _safetensors_tensor(file, name))
    elif not name.startswith(('decoder.', 'lm_head.')):
      tensors[name] = _safetensors_tensor(file, name)
  hugging_face = _Format(_hugging_face_name, r'encoder\.block\.(\d+)\.', transposed=True)
  return _convert(path, tensors, hugging_face, config)


def load_t5x(path: str | Path, config: T5Config | None = None) -> T5Weights:
  """Weights of a checkpoint folder that T5X wrote; arguments and errors as `load`."""
  path = Path(path)
  folders = [*path.glob('target.encoder.*'), *path.glob('target.token_embedder.*')]
  tensors = {folder.name: _t5x_tensor(folder) for folder in folders}
  t5x = _Format(_t5x_name, r'target\.encoder\.layers_(\d+)\.', transposed=False)
  return _convert(path, tensors, t5x, config)


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
  source: Path, tensors: Mapping[str, _Tensor], fmt: _Format, config: T5Config | None
) -> T5Weights:
  """Checks names and shapes of all tensors before it reads the first, then builds the tree."""
  if config is None:
    config = _config_from_shapes(source, tensors, fmt)
  shapes = _param_shapes(config)
  _check_names(source, tensors, {fmt.name_fn(path) for path in shapes})
  for path, shape in shapes.items():
    name = fmt.name_fn(path)
    expected = _stored_shape(path, shape, fmt.transposed)
    stored = tensors[name].shape
    # T5X has also written kernels with heads apart, which is the order of the Flax tree.
    if stored != expected and (fmt.transposed or stored != shape):
      raise InputError(
        f'{source}: tensor {name} has shape {stored}, expected {expected} of {config}'
      )
  params = {}
  for path, shape in shapes.items():
    array = tensors[fmt.name_fn(path)].read()
    params[path] = _to_flax(source, fmt, path, array).reshape(shape)
  return T5Weights(config, traverse_util.unflatten_dict(params))


def _param_shapes(config: T5Config) -> dict[ParamPath, tuple[int, ...]]:
  ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
  variables = jax.eval_shape(T5Encoder(config).init, jax.random.key(0), ids, mask)
  params = traverse_util.flatten_dict(nn.unbox(variables['params']))
  return {path: param.shape for path, param in params.items()}


def _stored_shape(path: ParamPath, shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
  """Shape on disk: heads joined with their width, and turned over except for the embedding."""
  if len(shape) == 3:
    split = 2 if path[-2] == 'out' else 1
    shape = (math.prod(shape[:split]), math.prod(shape[split:]))
  return shape[::-1] if transposed and path[0] != 'token_embedder' else shape


def _to_flax(source: Path, fmt: _Format, path: ParamPath, array: np.ndarray) -> np.ndarray:
  # Integers are quantised weights, which mean nothing without their scales.
  if not jnp.issubdtype(array.dtype, jnp.floating):
    name = fmt.name_fn(path)
    raise InputError(f'{source}: tensor {name} is {array.dtype}, need floating point weights')
  array = array.astype(np.float32)
  return array.T if fmt.transposed and path[0] != 'token_embedder' else array


def _check_names(source: Path, names: Mapping[str, _Tensor], expected: set[str]) -> None:
  missing = sorted(expected - names.keys())
  unexpected = sorted(names.keys() - expected)
  if missing or unexpected:
    faults = [f'{len(missing)} missing, first {missing[0]}'] if missing else []
    faults += [f'{len(unexpected)} unexpected, first {unexpected[0]}'] if unexpected else []
    raise InputError(
      f'{source}: tensors are not those of a T5 v1.1 or ByT5 encoder: {"; ".join(faults)}'
    )


def _config_from_shapes(source: Path, tensors: Mapping[str, _Tensor], fmt: _Format) -> T5Config:
  """Sizes from the embedding, the position bias and the first layer's query and gate."""

  def matrix_shape(*path: str) -> tuple[int, int]:
    name = fmt.name_fn(path)
    if name not in tensors:
      raise InputError(f'{source}: tensor {name} of a T5 v1.1 or ByT5 encoder is missing')
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
    raise InputError(
      f'{source}: tensor {name} has {query_size} outputs, not divisible by {num_heads} heads'
    )
  num_layers = 1 + max(map(int, layers))
  head_size = query_size // num_heads
  return T5Config(vocab_size, width, num_layers, num_heads, head_size, mlp_size, num_buckets)


def _safetensors_files(path: Path) -> dict[str, Path]:
  """Tensor name -> the file that holds it."""
  if not path.is_dir():
    return dict.fromkeys(_tensor_names(path), path)
  if (path / INDEX_NAME).exists():
    return _indexed_files(path / INDEX_NAME)
  files = sorted(path.glob('*.safetensors'))
  if path / 'model.safetensors' in files:
    files = [path / 'model.safetensors']
  if len(files) > 1:
    names = ', '.join(file.name for file in files)
    raise InputError(f'{path}: no {INDEX_NAME} says how {names} belong together; name one file')
  if not files:
    _refuse_pickle(path)
    raise InputError(
      f'{path}: no T5 weights; expected *.safetensors, {INDEX_NAME} with its shards, or a T5X '
      'checkpoint folder (checkpoint_<step>, with target.encoder.* in it)'
    )
  return dict.fromkeys(_tensor_names(files[0]), files[0])


def _indexed_files(index_path: Path) -> dict[str, Path]:
  try:
    weight_map = json.loads(index_path.read_text())['weight_map']
    files = {name: index_path.parent / file for name, file in weight_map.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{index_path}: not an index of safetensors shards: {error!r}') from error
  held = {file: _tensor_names(file) for file in sorted(set(files.values()))}
  for name, file in files.items():
    if name not in held[file]:
      raise InputError(f'{file}: tensor {name} is missing, though {index_path.name} puts it there')
  return files


def _tensor_names(file: Path) -> set[str]:
  _refuse_pickle(file)
  if not file.is_file():
    raise InputError(f'{file}: T5 weights do not exist')
  try:
    with safetensors.safe_open(file, 'numpy') as tensors:
      return set(tensors.keys())
  except safetensors.SafetensorError as error:
    raise InputError(f'{file}: not a whole safetensors file: {error}') from error


def _refuse_pickle(path: Path) -> None:
  candidates = sorted(path.iterdir()) if path.is_dir() else [path]
  for file in candidates:
    if file.suffix in PICKLE_SUFFIXES:
      raise InputError(
        f'{file}: a pickle can run code and is not read; if you trust it, convert it with '
        '`transformers.T5EncoderModel.from_pretrained(folder).save_pretrained(new_folder)`, which '
        'writes safetensors'
      )


def _safetensors_tensor(file: Path, name: str) -> _Tensor:
  with safetensors.safe_open(file, 'numpy') as tensors:
    shape = tuple(tensors.get_slice(name).get_shape())
  return _Tensor(shape, functools.partial(_read_safetensors, file, name))


def _read_safetensors(file: Path, name: str) -> np.ndarray:
  with safetensors.safe_open(file, 'numpy') as tensors:
    return tensors.get_tensor(name)


def _t5x_tensor(folder: Path) -> _Tensor:
  spec = {
    'driver': 'zarr',
    'kvstore': {'driver': 'file', 'path': str(folder.resolve())},
    # By default a chunk that was not copied would read as zeros.
    'fill_missing_data_reads': False,
  }
  try:
    store = ts.open(spec, open=True, read=True).result()
  except ValueError as error:
    raise InputError(f'{folder}: not a zarr array as T5X writes it') from error
  return _Tensor(tuple(store.shape), functools.partial(_read_t5x, folder, store))


def _read_t5x(folder: Path, store: ts.TensorStore) -> np.ndarray:
  try:
    return store.read().result()
  except ValueError as error:
    raise InputError(f'{folder}: tensor is not whole, copy the checkpoint again') from error
