"""Files that exist whole or not at all, and hashes of what they hold."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import socket
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import jax
import numpy as np

from imagenet_synth.core.errors import InputError


@contextlib.contextmanager
def open_atomic(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a file to be written that takes the place of `path`, whole, when the context ends.

  The data go to a temporary name in the same folder, are synced to the disk, and the file is renamed. Where
  the context ends with an error nothing is left of it; a process that is killed leaves the temporary file.
  """
  # with the host's name: workers on other machines have the same process ids
  temporary = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}.tmp')
  try:
    with open(temporary, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_atomic(path: pathlib.Path, data: bytes | str | Iterable[bytes]) -> None:
  """Writes a file whole: a process that is killed meanwhile leaves the old content, or the new.

  The data can come in parts, of which one at a time is in memory.
  """
  with open_atomic(path) as file:
    file.writelines([data] if isinstance(data, bytes) else [data.encode()] if isinstance(data, str) else data)


def delete_unfinished(folder: pathlib.Path) -> None:
  """Deletes what killed processes have left of files in a folder, when nobody writes there any more."""
  for path in folder.glob('.*.tmp'):
    path.unlink(missing_ok=True)


def write_arrays(path: pathlib.Path, /, compressed: bool = False, **arrays: Any) -> None:
  """Writes an npz whole, in a folder that is made if it isn't there; `read_arrays` reads it."""
  file = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(file, **arrays)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomic(path, file.getvalue())


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of an npz by name.

  Raises:
    InputError: the file is not there, or is no npz.
  """
  try:
    with open(path, 'rb') as opened, np.load(opened) as file:
      return dict(file)
  except FileNotFoundError:
    raise InputError(f'{path} does not exist') from None
  # what numpy and zipfile raise for what is no npz, is cut off or has flipped bits
  except (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
  ) as error:
    raise InputError(f'{path} cannot be read ({error}); delete it and run again') from None


def write_rows(path: pathlib.Path, num_rows: int, blocks: Iterable[np.ndarray]) -> None:
  """Writes an npy float32 whole, given its number of rows and blocks [n, ...] of them in order.

  No more than a block is in memory. `open_rows` opens the file.
  """
  num_written = 0
  with open_atomic(path) as file:
    for block in blocks:
      if not num_written:
        shape = (num_rows, *block.shape[1:])
        header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
        np.lib.format.write_array_header_1_0(file, header)
      file.write(np.ascontiguousarray(block, '<f4').data)
      num_written += len(block)
    assert num_written == num_rows, f'{num_written} rows, not {num_rows}'


def open_rows(path: pathlib.Path) -> np.ndarray:
  """Returns the array of an npy, which stays on the disk: rows are read when they are used.

  Raises:
    InputError: the file is not there, or is no whole npy.
  """
  try:
    return np.load(path, mmap_mode='r')
  except FileNotFoundError:
    raise InputError(f'{path} does not exist') from None
  except (ValueError, EOFError) as error:
    raise InputError(f'{path} is no whole npy: {error}') from None


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value as JSON, whole or not at all."""
  write_atomic(path, json_text(value))


def json_text(value: Any) -> str:
  """Returns what `write_json` writes."""
  return json.dumps(value, indent=2) + '\n'


def read_json(path: pathlib.Path) -> Any:
  """Returns the value that a JSON file holds.

  Raises:
    InputError: the file is not there, or is no JSON.
  """
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise InputError(f'{path} does not exist') from None
  except ValueError as error:
    raise InputError(f'{path} is not valid JSON ({error}); delete it and run again') from None


def json_hash(value: Any) -> str:
  """Returns 16 hex digits that identify a JSON value, whatever the order of its keys."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def tree_hash(tree: Any) -> str:
  """Returns 16 hex digits that identify a tree of arrays by its paths, shapes, dtypes and bytes."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    digest.update(f'{jax.tree_util.keystr(path)}{array.shape}{array.dtype}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]
