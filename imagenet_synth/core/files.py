"""Files that exist whole or not at all, and hashes of what they hold."""

import hashlib
import json
import os
import pathlib
import socket
from typing import Any

import jax
import numpy as np

from imagenet_synth.core.errors import InputError


def write_atomic(path: pathlib.Path, data: bytes | str) -> None:
  """Writes to a temporary name in the same folder, syncs, renames: a kill leaves the old or the new."""
  # of this process alone: workers on other machines have the same process ids
  temporary = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}.tmp')
  with open(temporary, 'wb') as file:
    file.write(data.encode() if isinstance(data, str) else data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def write_json(path: pathlib.Path, value: Any) -> None:
  write_atomic(path, json.dumps(value, indent=2) + '\n')


def read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise InputError(f'{path} does not exist') from None
  except ValueError as error:
    raise InputError(f'{path} is not valid JSON ({error}); delete it and run again') from None


def json_hash(value: Any) -> str:
  """16 hex digits that identify a JSON value, whatever the order of its keys."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def tree_hash(tree: Any) -> str:
  """16 hex digits that identify a tree of arrays: paths, shapes, dtypes and bytes."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    digest.update(f'{jax.tree_util.keystr(path)}{array.shape}{array.dtype}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]
