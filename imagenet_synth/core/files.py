"""Files that exist whole or not at all, and hashes of what they hold."""

import hashlib
import io
import json
import os
import pathlib
import socket
import zipfile
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from imagenet_synth.core.errors import InputError


def write_atomic(path: pathlib.Path, data: bytes | str | Iterable[bytes]) -> None:
  """Writes a file whole: a process that is killed meanwhile leaves the old content, or the new.

  The data go to a temporary name in the same folder, are synced to the disk, and the file is renamed. They
  can come in parts, of which one at a time is in memory.
  """
  # with the host's name: workers on other machines have the same process ids
  temporary = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}.tmp')
  with open(temporary, 'wb') as file:
    parts = [data] if isinstance(data, bytes) else [data.encode()] if isinstance(data, str) else data
    file.writelines(parts)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def write_arrays(path: pathlib.Path, **arrays: Any) -> None:
  """Writes an npz whole, in a folder that is made if it isn't there; `read_arrays` reads it."""
  file = io.BytesIO()
  np.savez(file, **arrays)
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


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value as JSON, whole or not at all."""
  write_atomic(path, json.dumps(value, indent=2) + '\n')


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
