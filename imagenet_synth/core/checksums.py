"""SHA-256 of the files of a folder, kept beside them: damage that comes later is found by it.

    FOLDER/SHA256SUMS   a line for each file, also of folders below, as `sha256sum --check` reads it; the last
                        line, a comment, has the SHA-256 of those before it
    FILE.sha256         that of a large file, written with it, so that it is not read again for SHA256SUMS

A folder below that has a SHA256SUMS of its own, as each checkpoint does, stands there by this file alone.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import files_below, is_remote, is_unfinished, write_atomic

SUMS = 'SHA256SUMS'
"""The name of the file in a folder."""

# of the file that a file's hash is kept in
_SUFFIX = '.sha256'
# of a file that is read at a time
_BLOCK = 2**22


def file_hash(path: epath.Path) -> str:
  """Returns the SHA-256 of a file, as hex digits. Threads hash as many files at once as there are cores."""
  digest = hashlib.sha256()
  with path.open('rb') as file:
    while block := file.read(_BLOCK):
      digest.update(block)
  return digest.hexdigest()


def hash_path(path: epath.Path) -> epath.Path:
  """Returns where a file's hash is kept, in the form that `sha256sum --check` reads."""
  return path.with_name(f'{path.name}{_SUFFIX}')


def keep_hash(path: epath.Path, digest: str) -> None:
  """Writes the hash of a file beside it."""
  write_atomic(hash_path(path), f'{digest}  {path.name}\n')


def kept_hash(path: epath.Path) -> str:
  """Returns the hash that a file had when it was written.

  Where it is not kept beside it, as after a kill between the two, it is computed and kept now.

  Raises:
    InputError: what is beside it is no hash.
  """
  if not hash_path(path).exists():
    keep_hash(path, file_hash(path))
  digest = hash_path(path).read_bytes()[:64].decode(errors='replace')
  if not re.fullmatch('[0-9a-f]{64}', digest):
    raise InputError(f'{hash_path(path)} holds no SHA-256; delete it and run again')
  return digest


def write_sums(
  folder: epath.Path, to_come: Mapping[str, str] = {}, left_out: Collection[epath.Path] = ()
) -> None:
  """Writes the SHA256SUMS of a folder, whole or not at all.

  Args:
    folder: its files are all there; temporary ones don't count.
    to_come: the hashes of files of the folder that are written afterwards, by name.
    left_out: folders below it whose files are not listed.
  """
  names = [name for name, _ in files_below(folder)]
  kept = {name for name in names if name.endswith(_SUFFIX)}
  listed = [name for name in _listed(names, left_out, folder) if name not in to_come]

  def known_hash(name: str) -> str:
    path = folder / name
    return kept_hash(path) if f'{name}{_SUFFIX}' in kept else file_hash(path)

  with ThreadPoolExecutor(_num_readers(folder)) as pool:
    found = zip(listed, pool.map(known_hash, listed))
    lines = [f'{digest}  {name}\n' for name, digest in (*found, *to_come.items())]
  text = ''.join(lines)
  write_atomic(folder / SUMS, f'{text}# {hashlib.sha256(text.encode()).hexdigest()}\n')


def _listed(names: Sequence[str], left_out: Collection[epath.Path], folder: epath.Path) -> Iterator[str]:
  """Yields those of the files below a folder that its SHA256SUMS lists."""
  with_sums = {name.rpartition('/')[0] for name in names if name.endswith(f'/{SUMS}')}
  not_listed = {path.relative_to(folder).as_posix() for path in left_out}
  for name in names:
    # outermost first
    parents = [name[:place] for place, character in enumerate(name) if character == '/']
    own = next((parent for parent in parents if parent in with_sums), None)
    if name == SUMS or is_unfinished(name) or not not_listed.isdisjoint(parents):
      continue
    if own is None or name == f'{own}/{SUMS}':
      yield name


def _num_readers(folder: epath.Path) -> int:
  """Returns how many threads read files: on a disk, for the cores that hash; in a bucket, for its answers."""
  return 32 if is_remote(folder) else (os.cpu_count() or 1) + 4


def read_sums(folder: epath.Path) -> dict[str, str]:
  """Returns the hash of each file that the SHA256SUMS of a folder has, by its path below the folder.

  Raises:
    InputError: it is not there, or not as it was written.
  """
  try:
    data = (folder / SUMS).read_bytes()
  except FileNotFoundError:
    raise InputError(f'{folder / SUMS} does not exist') from None
  *lines, last = data.splitlines(keepends=True) or [b'']
  if last != f'# {hashlib.sha256(b"".join(lines)).hexdigest()}\n'.encode():
    raise InputError(f'{folder / SUMS} was altered or cut off: its last line is not the hash of the others')
  pairs = (line.decode().rstrip('\n').split('  ', 1) for line in lines)
  return {name: digest for digest, name in pairs}


def fault_of(path: epath.Path, digest: str) -> str | None:
  """Returns what is wrong with a file, as the end of a sentence; None if it has the hash that is given."""
  try:
    if file_hash(path) == digest:
      return None
  except FileNotFoundError:
    return 'is missing'
  except OSError as error:
    return f'cannot be read: {error.strerror}'
  return 'was altered or cut off: its SHA-256 is not the one that it was written with'


def require_whole(folder: epath.Path, remedy: str) -> None:
  """Returns if the files of a folder are as they were written, or it has no SHA256SUMS by which to tell.

  All of it is read for this, as fast as the disk is, or cores hash: 1.8 GB/s each with SHA instructions.

  Raises:
    InputError: one is not; the message ends with `remedy`.
  """
  if not (folder / SUMS).exists():
    return
  try:
    sums = read_sums(folder)
  except InputError as error:
    raise InputError(f'{error}; {remedy}') from None
  paths = [folder / name for name in sums]
  with ThreadPoolExecutor(_num_readers(folder)) as pool:
    for path, fault in zip(paths, pool.map(fault_of, paths, sums.values())):
      if fault:
        raise InputError(f'{path} {fault}; {remedy}')
