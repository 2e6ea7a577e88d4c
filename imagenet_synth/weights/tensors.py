"""Reads named tensors that others have written, checked against the parameters they are to become.

Safetensors (one file, or shards with their index) and npz are read; a pickle never is, as it can run
code. Names and shapes of all tensors are checked before the first is read.
"""

import functools
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath
from flax import traverse_util

from imagenet_synth.core.copies import local_copy
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import matching, open_local

_PICKLE_SUFFIXES = ('.bin', '.ckpt', '.pkl', '.pt', '.pth')
_MAIN_FILES = ('model.safetensors', 'diffusion_pytorch_model.safetensors')

ParamPath = tuple[str, ...]
"""Where a parameter stands in the Flax tree."""


def _unchanged(array: np.ndarray) -> np.ndarray:
  return array


class Tensor(NamedTuple):
  """A tensor in a file."""

  shape: tuple[int, ...]
  # returns what is in it
  read: Callable[[], np.ndarray]


class Param(NamedTuple):
  """A Flax parameter, and how it is stored."""

  # of its tensor
  name: str
  # those that its tensor may have
  shapes: tuple[tuple[int, ...], ...]
  # returns the parameter, given what is in the tensor
  to_flax: Callable[[np.ndarray], np.ndarray] = _unchanged
  # what it is rounded to
  dtype: str = 'float32'


class Kind(NamedTuple):
  """What is looked for, in words."""

  # what messages call it
  name: str
  # the code that makes safetensors of a pickle
  convert: str


def open_tensors(path: epath.Path, kind: Kind) -> dict[str, Tensor]:
  """Returns the tensors of a file (.safetensors, .npz) or of a folder of safetensors, by name, unread.

  Without PyTorch's counters of the batches that a batch norm has seen, which no network computes with.

  Raises:
    InputError: nothing that can be read is there, a shard is missing or cut off, or it is a pickle.
  """
  if not path.exists():
    raise InputError(f'{path}: weights of {kind.name} do not exist')
  if path.suffix == '.npz':
    tensors = _npz_tensors(path)
  else:
    files = _files(path, kind)
    here = {file: local_copy(file) for file in set(files.values())}
    tensors = {name: _safetensors_tensor(here[file], name) for name, file in files.items()}
  return {name: tensor for name, tensor in tensors.items() if not name.endswith('.num_batches_tracked')}


def load_tree(
  source: epath.Path, tensors: Mapping[str, Tensor], params: Mapping[ParamPath, Param], kind: Kind
) -> dict[str, Any]:
  """Returns the Flax tree of the parameters, numpy arrays of their dtypes; one tensor is converted at a time.

  Args:
    source: where the tensors are from, for messages.
    tensors: by name.
    params: by their place in the tree.
    kind: what they are of, for messages.

  Raises:
    InputError: a tensor is missing, unexpected, of a wrong shape or not floating point; the message
      names it.
  """
  missing = sorted({param.name for param in params.values()} - tensors.keys())
  unexpected = sorted(tensors.keys() - {param.name for param in params.values()})
  if missing or unexpected:
    faults = [f'{len(missing)} missing, first {missing[0]}'] if missing else []
    faults += [f'{len(unexpected)} unexpected, first {unexpected[0]}'] if unexpected else []
    raise InputError(f'{source}: tensors are not those of {kind.name}: {"; ".join(faults)}')
  for param in params.values():
    shape = tensors[param.name].shape
    if shape not in param.shapes:
      raise InputError(
        f'{source}: tensor {param.name} has shape {shape}, expected {param.shapes[0]} of {kind.name}'
      )
  return traverse_util.unflatten_dict(
    {path: param.to_flax(_read(source, param, tensors)) for path, param in params.items()}
  )


def torch_param(path: ParamPath, shape: tuple[int, ...], name: str) -> Param:
  """Returns how a PyTorch module stores a parameter: convolutions are OIHW there, matrices [out, in].

  Args:
    path: the parameter's place in the Flax tree.
    shape: the parameter's shape in Flax.
    name: of its tensor.
  """
  if path[-1] != 'kernel':
    return Param(name, (shape,))
  if len(shape) == 4:
    return Param(name, ((shape[3], shape[2], *shape[:2]),), lambda a: a.transpose(2, 3, 1, 0))
  return Param(name, (shape[::-1],), np.transpose)


def _read(source: epath.Path, param: Param, tensors: Mapping[str, Tensor]) -> np.ndarray:
  array = tensors[param.name].read()
  # integers are quantised weights, which mean nothing without their scales
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise InputError(f'{source}: tensor {param.name} is {array.dtype}, need floating point weights')
  return array.astype(jnp.dtype(param.dtype))


def _npz_tensors(path: epath.Path) -> dict[str, Tensor]:
  try:
    with open_local(path) as file, np.load(file, allow_pickle=False) as stored:
      arrays = dict(stored)
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(f'{path}: not a whole npz of plain arrays: {error}') from error
  return {name: Tensor(array.shape, functools.partial(np.asarray, array)) for name, array in arrays.items()}


def _files(path: epath.Path, kind: Kind) -> dict[str, epath.Path]:
  """Returns {tensor name: the file that holds it}."""
  if not path.is_dir():
    return dict.fromkeys(_names(path, kind), path)
  indices = matching(path, '*.safetensors.index.json')
  if len(indices) == 1:
    return _indexed_files(indices[0], kind)
  files = matching(path, '*.safetensors')
  main = [file for file in files if file.name in _MAIN_FILES]
  files = main if len(main) == 1 else files
  if len(files) > 1:
    names = ', '.join(file.name for file in files)
    raise InputError(f'{path}: no *.safetensors.index.json says how {names} belong together; name one file')
  if not files:
    _refuse_pickle(path, kind)
    raise InputError(
      f'{path}: no weights of {kind.name}; expected *.safetensors, or '
      '*.safetensors.index.json with its shards'
    )
  return dict.fromkeys(_names(files[0], kind), files[0])


def _indexed_files(index_path: epath.Path, kind: Kind) -> dict[str, epath.Path]:
  try:
    weight_map = json.loads(index_path.read_text())['weight_map']
    files = {name: index_path.parent / file for name, file in weight_map.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{index_path}: not an index of safetensors shards: {error!r}') from error
  held = {file: _names(file, kind) for file in sorted(set(files.values()))}
  for name, file in files.items():
    if name not in held[file]:
      raise InputError(f'{file}: tensor {name} is missing, though {index_path.name} puts it there')
  return files


def _names(file: epath.Path, kind: Kind) -> set[str]:
  """Returns the names of the tensors in a safetensors file."""
  _refuse_pickle(file, kind)
  if not file.is_file():
    raise InputError(f'{file}: weights of {kind.name} do not exist')
  try:
    with safetensors.safe_open(local_copy(file), 'numpy') as tensors:
      return set(tensors.keys())
  except safetensors.SafetensorError as error:
    raise InputError(f'{file}: not a whole safetensors file: {error}') from error


def _refuse_pickle(path: epath.Path, kind: Kind) -> None:
  """Raises InputError if a file, or one in a folder, is a pickle by its name."""
  for file in matching(path, '*') if path.is_dir() else [path]:
    if file.suffix in _PICKLE_SUFFIXES:
      raise InputError(
        f'{file}: a pickle can run code and is not read; if you trust it, convert it '
        f'with `{kind.convert}`, which writes safetensors'
      )


def _safetensors_tensor(file: epath.Path, name: str) -> Tensor:
  with safetensors.safe_open(file, 'numpy') as tensors:
    shape = tuple(tensors.get_slice(name).get_shape())
  return Tensor(shape, functools.partial(_read_safetensors, file, name))


def _read_safetensors(file: epath.Path, name: str) -> np.ndarray:
  with safetensors.safe_open(file, 'numpy') as tensors:
    return tensors.get_tensor(name)
