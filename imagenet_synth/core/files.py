"""Files on disks and in buckets: that exist whole or not at all, are listed, read in parts, and hashed.

A path is local, or the URL of an object in a bucket: gs:// or s3://. Nothing else knows the difference. In a
bucket there are no folders, nothing can be renamed or appended to, and an object is there when its upload has
ended. What must be a file of this machine, as others map it into memory, is copied to a cache.
"""

import contextlib
import errno
import glob
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import fsspec
import jax
import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError

# what reads each kind of bucket: the module, and the extra of this package that brings it
_READERS = {'gs': ('gcsfs', 'gcs'), 's3': ('s3fs', 's3')}

# others write and delete, too: what is there is asked each time
for _protocol in ('gcs', 's3'):
  fsspec.config.conf.setdefault(_protocol, {})['use_listings_cache'] = False

# bytes that are copied at a time
_BLOCK = 2**24
# what a zip file without a comment ends with: a mark, and how many members there are
_ZIP_END = struct.Struct('<4s6xH10x')
# what a file is called until it is whole: see `_temporary`
_UNFINISHED = re.compile(r'(^|/)\.[^/]*\.tmp$')
# of a journal in a bucket: an object may be written once a second
_SECONDS_BETWEEN_VERSIONS = 30


def as_path(text: epath.PathLike) -> epath.Path:
  """Returns the path that a user has written: a local one, where `~` is the home folder, or a URL.

  Raises:
    InputError: it is a URL of something else than a bucket, or what reads such a bucket is not installed.
  """
  text = os.fspath(text)
  scheme, mark, rest = text.partition(':/')
  if not mark or '/' in scheme:
    return epath.Path(text).expanduser()
  if scheme not in _READERS or not rest.strip('/') or not rest.startswith('/'):
    raise InputError(f'{text!r} is no path: it must be local, gs://BUCKET/... or s3://BUCKET/...')
  module, extra = _READERS[scheme]
  if importlib.util.find_spec(module) is None:
    raise InputError(f"{text} needs {module}: pip install 'imagenet_synth[{extra}]'")
  return epath.Path(text)


# where the relative paths of configs begin; this folder, if nothing is said
_roots: dict[Literal['data', 'weights'], epath.Path] = {}


def set_roots(data: epath.PathLike | None, weights: epath.PathLike | None) -> None:
  """Says where the relative paths of configs begin: of data sets, and of weights; None is this folder.

  Raises:
    InputError: one is no path: see `as_path`.
  """
  given: dict[Literal['data', 'weights'], epath.PathLike | None] = {'data': data, 'weights': weights}
  _roots.clear()
  _roots.update({kind: as_path(root) for kind, root in given.items() if root is not None})


def data_path(text: epath.PathLike) -> epath.Path:
  """Returns the path of data that a config names; raises InputError if it is none: see `as_path`."""
  return _below_root('data', text)


def weights_path(text: epath.PathLike) -> epath.Path:
  """Returns the path of weights that a config names; raises InputError if it is none: see `as_path`."""
  return _below_root('weights', text)


def _below_root(kind: Literal['data', 'weights'], text: epath.PathLike) -> epath.Path:
  path = as_path(text)
  is_relative = not is_remote(path) and not path.is_absolute()
  return _roots[kind] / path if is_relative and kind in _roots else path


def is_remote(path: epath.PathLike) -> bool:
  """Returns whether a path is of an object in a bucket, or of a folder of them."""
  return os.fspath(path).startswith(('gs://', 's3://'))


def _bucket(path: epath.PathLike) -> Any:
  """Returns the file system of fsspec that a path in a bucket is of; it is made once a process."""
  return fsspec.filesystem(os.fspath(path).partition('://')[0])


def absolute(path: epath.PathLike) -> epath.Path:
  """Returns the one path of a place: without symbolic links, and wherever the process is."""
  return epath.Path(path if is_remote(path) else os.path.realpath(path))


def make_folder(path: epath.PathLike) -> None:
  """Makes a folder with those above it, if it isn't there; in a bucket, there are none to make."""
  if not is_remote(path):
    os.makedirs(path, exist_ok=True)


def delete_tree(path: epath.PathLike) -> None:
  """Deletes a folder with all that is in it, if it is there."""
  if not is_remote(path):
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(FileNotFoundError):
      _bucket(path).rm(os.fspath(path), recursive=True)


def matching(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
  """Returns the files and folders below a folder that match a pattern such as `*/*.png`, sorted."""
  if not is_remote(folder):
    return sorted(map(epath.Path, pathlib.Path(folder).glob(pattern)))
  bucket = _bucket(folder)
  found = bucket.glob(f'{glob.escape(os.fspath(folder))}/{pattern}')
  return sorted(epath.Path(bucket.unstrip_protocol(path)) for path in found)


def entries(folder: epath.PathLike) -> list[tuple[epath.Path, bool]]:
  """Returns what is in a folder, sorted by name, each with whether it is a folder; one listing tells."""
  if not is_remote(folder):
    with os.scandir(folder) as found:
      return sorted((epath.Path(entry.path), entry.is_dir()) for entry in found)
  bucket = _bucket(folder)
  listed = bucket.ls(os.fspath(folder), detail=True)
  both = ((epath.Path(bucket.unstrip_protocol(of['name'])), of['type'] == 'directory') for of in listed)
  # a marker that others have made may have the name of the folder
  return sorted((path, is_folder) for path, is_folder in both if path != epath.Path(folder))


def move_folder(folder: epath.PathLike, target: epath.PathLike) -> None:
  """Moves a folder to where there is none, beside others that are there.

  In a bucket, objects are copied first and then deleted; after a kill in between, another call goes on.

  Raises:
    OSError: there is a folder, or another process has moved this one.
  """
  if not is_remote(folder):
    os.rename(folder, target)
    return
  marker = epath.Path(f'{os.fspath(target)}.incomplete')
  if epath.Path(target).exists() and not marker.exists():
    raise FileExistsError(target)
  write_atomic(marker, b'')
  for name, _ in files_below(folder):
    _bucket(folder).copy(os.fspath(epath.Path(folder, name)), os.fspath(epath.Path(target, name)))
  marker.unlink()
  delete_tree(folder)


class FileState(NamedTuple):
  """What changes when a file does."""

  # bytes
  size: int
  # when it was written last, in nanoseconds; in a bucket, what names the version of the object
  version: int | str


def files_below(folder: epath.PathLike) -> Iterator[tuple[str, FileState]]:
  """Yields the path below the folder of each file at any depth, in order, and its state."""
  if not is_remote(folder):
    yield from _files_below(os.fspath(folder), '')
  else:
    start = len(os.fspath(folder).partition('://')[2].rstrip('/')) + 1
    # a listing of a bucket has all this, a thousand objects an answer
    found = _bucket(folder).find(os.fspath(folder), detail=True)
    # folder by folder, as on a disk: `a/b` before `a.txt`
    for name, about in sorted(found.items(), key=lambda of: of[0].replace('/', '\0')):
      yield name[start:], FileState(about['size'], about.get('generation') or about['ETag'])


def _files_below(folder: str, prefix: str) -> Iterator[tuple[str, FileState]]:
  """Yields the files below a local folder as `files_below` does, their paths behind a prefix."""
  if not os.path.isdir(folder):
    return
  with os.scandir(folder) as entries:
    in_order = sorted(entries, key=lambda entry: entry.name)
  for entry in in_order:
    if entry.is_dir(follow_symlinks=False):
      yield from _files_below(entry.path, f'{prefix}{entry.name}/')
    elif entry.is_file():
      status = entry.stat()
      yield f'{prefix}{entry.name}', FileState(status.st_size, status.st_mtime_ns)


def size_of(path: epath.PathLike) -> int:
  """Returns the bytes of a file; raises FileNotFoundError if it is not there."""
  return _bucket(path).info(os.fspath(path))['size'] if is_remote(path) else os.stat(path).st_size


def modified(path: epath.PathLike) -> float:
  """Returns when a file was written last, in seconds since 1970."""
  return _bucket(path).modified(os.fspath(path)).timestamp() if is_remote(path) else os.stat(path).st_mtime


def are_there(paths: Sequence[epath.Path]) -> list[bool]:
  """Returns of each path whether there is such a file; in a bucket, one listing of each folder tells."""
  listed = {
    parent: set(matching(parent, '*')) for parent in {path.parent for path in paths if is_remote(path)}
  }
  return [path in listed[path.parent] if is_remote(path) else path.exists() for path in paths]


class RandomAccess:
  """A file of which any bytes can be read, by several threads at a time; open until nobody has a use for it.

  Raises:
    FileNotFoundError: it is not there; of an object in a bucket, when it is read.
  """

  def __init__(self, path: epath.PathLike):
    self._fd = -1
    self._path = os.fspath(path)
    if not is_remote(path):
      self._fd = os.open(path, os.O_RDONLY)

  def __del__(self, close: Callable[[int], None] = os.close) -> None:
    # as an argument, it is there when the program ends, too
    if self._fd >= 0:
      close(self._fd)

  def read(self, start: int, length: int) -> bytes:
    """Returns bytes of the file, fewer where it ends."""
    if self._fd >= 0:
      return os.pread(self._fd, length, start)
    return _bucket(self._path).cat_file(self._path, start, start + length)


@contextlib.contextmanager
def open_atomic(path: epath.PathLike) -> Iterator[BinaryIO]:
  """Opens a file to be written that takes the place of `path`, whole, when the context ends.

  The data go to a temporary name in the same folder, are synced to the disk, and the file is renamed. Where
  the context ends with an error nothing is left of it; a process that is killed leaves the temporary file. In
  a bucket, the data go straight to the object, which is there when all have come.
  """
  if is_remote(path):
    with _open_object(path) as file:
      yield file
    return
  temporary = _temporary(path)
  try:
    with open(temporary, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException as error:
    temporary.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
      # of a disk that is full, no file is named
      error.filename = str(path)
    raise


@contextlib.contextmanager
def _open_object(path: epath.PathLike) -> Iterator[BinaryIO]:
  """Opens an object to be written; where the context ends with an error, the old one stays, or none."""
  file = _bucket(path).open(os.fspath(path), 'wb')
  try:
    yield file
  except BaseException:
    with contextlib.suppress(Exception):
      file.discard()
    # or it would still be uploaded when it is collected
    file.closed = True
    raise
  file.close()


def _temporary(path: epath.PathLike) -> pathlib.Path:
  """Returns where a file is written before it has its name."""
  # with the host's name: workers on other machines have the same process ids
  return pathlib.Path(path).with_name(f'.{pathlib.Path(path).name}.{socket.gethostname()}.{os.getpid()}.tmp')


def create(path: epath.PathLike, data: bytes) -> bool:
  """Writes a small file whole, unless there is one, and returns whether it did.

  Of several processes that create the same file at once, on whatever machines, one gets True.
  """
  if is_remote(path):
    try:
      _bucket(path).pipe_file(os.fspath(path), data, mode='create')
    except FileExistsError:
      return False
    return True
  temporary = _temporary(path).with_suffix(f'.{uuid.uuid4().hex}.tmp')
  try:
    temporary.write_bytes(data)
    try:
      os.link(temporary, path)
    except FileExistsError:
      return False
    except OSError:
      # a disk that knows no second name of a file, such as a bucket mounted by gcsfuse
      with contextlib.suppress(FileExistsError), open(path, 'xb') as file:
        file.write(data)
        return True
      return False
    return True
  finally:
    temporary.unlink(missing_ok=True)


def write_atomic(path: epath.PathLike, data: bytes | str | Iterable[bytes]) -> None:
  """Writes a file whole: a process that is killed meanwhile leaves the old content, or the new.

  The data can come in parts, of which one at a time is in memory.
  """
  with open_atomic(path) as file:
    file.writelines([data] if isinstance(data, bytes) else [data.encode()] if isinstance(data, str) else data)


def full_disk(error: BaseException | None) -> str | None:
  """Returns what could not be written, if an error has come of a full disk; None if it has not."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
      return str(error.filename or 'a file')
    # TensorStore and TensorFlow raise errors of their own, with the file in their texts
    for reason in (errno.ENOSPC, errno.EDQUOT):
      if os.strerror(reason) in str(error):
        named = re.search(r'/[^\s"\';]+', str(error))
        return named[0] if named else 'a file'
    error = error.__cause__ or error.__context__
  return None


def is_unfinished(name: str) -> bool:
  """Returns whether a file, by its name or path, is one that `open_atomic` has begun and not ended."""
  return _UNFINISHED.search(name) is not None


def unfinished_below(folder: epath.PathLike) -> list[epath.Path]:
  """Returns the files at any depth of a folder that somebody writes, or was killed when writing."""
  # in a bucket there are none. Not by `files_below`, which asks for the state of each file: there may be
  # millions, and those that others write get their names meanwhile
  found = () if is_remote(folder) else os.walk(folder)
  return [epath.Path(parent, name) for parent, _, names in found for name in names if is_unfinished(name)]


def delete_unfinished(folder: epath.PathLike) -> None:
  """Deletes what killed processes have left of files below a folder, when nobody writes there any more."""
  for path in unfinished_below(folder):
    path.unlink(missing_ok=True)


def users_cache() -> pathlib.Path:
  """Returns the folder of what can be made again: imagenet_synth in $XDG_CACHE_HOME, or else in ~/.cache."""
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'imagenet_synth'


def open_local(path: epath.PathLike) -> BinaryIO:
  """Opens a file to be read from anywhere in it; of an object in a bucket, a copy that has no name."""
  if not is_remote(path):
    return open(path, 'rb')
  file = tempfile.TemporaryFile()
  try:
    with epath.Path(path).open('rb') as source:
      shutil.copyfileobj(cast(BinaryIO, source), file, _BLOCK)
    file.seek(0)
  except BaseException:
    file.close()
    raise
  return file


def copy_file(path: epath.PathLike, target: epath.PathLike) -> None:
  """Copies a file to a place that may be on this machine or in a bucket, where it appears whole."""
  make_folder(os.path.dirname(target))
  with open_atomic(target) as file, epath.Path(path).open('rb') as source:
    shutil.copyfileobj(cast(BinaryIO, source), file, _BLOCK)


class Journal:
  """Lines that are appended to a file, so that they survive a kill.

  On a disk a line is with the operating system at once. An object in a bucket cannot be appended to: it is
  written anew with all its lines, every half a minute at most, and whenever `flush` is called.

  Args:
    path: the file, which is replaced.
    lines: what it begins with.
  """

  def __init__(self, path: epath.PathLike, lines: Iterable[str] = ()):
    self._path = path
    text = ''.join(f'{line}\n' for line in lines)
    write_atomic(path, text)
    self._written = time.monotonic()
    self._file: io.TextIOBase = io.StringIO(text) if is_remote(path) else open(path, 'a', buffering=1)
    self._file.seek(0, os.SEEK_END)
    self._num_written = self._file.tell()

  def append(self, line: str) -> None:
    """Appends a line."""
    self._file.write(f'{line}\n')
    if is_remote(self._path) and time.monotonic() - self._written > _SECONDS_BETWEEN_VERSIONS:
      self.flush()

  def flush(self) -> None:
    """Returns when all lines survive a kill."""
    if isinstance(self._file, io.StringIO) and self._file.tell() > self._num_written:
      write_atomic(self._path, self._file.getvalue())
      self._written, self._num_written = time.monotonic(), self._file.tell()

  def close(self) -> None:
    """Takes no more lines."""
    self.flush()
    self._file.close()


def write_arrays(path: epath.PathLike, /, compressed: bool = False, **arrays: Any) -> None:
  """Writes an npz whole, in a folder that is made if it isn't there; `read_arrays` reads it."""
  file = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(file, **arrays)
  make_folder(os.path.dirname(path))
  write_atomic(path, file.getvalue())


def read_arrays(path: epath.PathLike) -> dict[str, np.ndarray]:
  """Returns the arrays of an npz by name.

  Raises:
    InputError: the file is not there, or is no npz.
  """
  try:
    with open_local(path) as opened, zipfile.ZipFile(opened) as archive:
      # zipfile takes what it finds: a flipped bit can make the next array's entry a comment of the one before
      opened.seek(-_ZIP_END.size, os.SEEK_END)
      if _ZIP_END.unpack(opened.read(_ZIP_END.size)) != (b'PK\5\6', len(archive.namelist())):
        raise ValueError('it is no whole list of arrays')
      return {name.removesuffix('.npy'): _read_member(archive, name) for name in archive.namelist()}
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
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    reason = ' '.join(str(error).split())
    raise InputError(f'{path} cannot be read ({reason}); delete it and run again') from None


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
  """Returns an array of an npz, all of whose bytes are checked by their CRC."""
  with archive.open(name) as member:
    array = np.lib.format.read_array(member, allow_pickle=False)
    # numpy stops where the header says, and what is read in part is not checked
    if member.read(1):
      raise ValueError(f'{name} is longer than its header says')
    return array


def write_rows(path: epath.PathLike, num_rows: int, blocks: Iterable[np.ndarray]) -> None:
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


def open_rows(path: epath.PathLike) -> np.ndarray:
  """Returns the array of an npy, which stays on the disk: rows are read when they are used.

  Of an object in a bucket, a copy without a name is mapped, which is gone with the array.

  Raises:
    InputError: the file is not there, or is no whole npy.
  """
  try:
    if not is_remote(path):
      return np.load(path, mmap_mode='r')
    with open_local(path) as file:
      return map_array(file)
  except FileNotFoundError:
    raise InputError(f'{path} does not exist') from None
  except (ValueError, EOFError) as error:
    raise InputError(f'{path} is no whole npy: {error}; --redo the job of this folder') from None


def map_array(file: BinaryIO) -> np.ndarray:
  """Returns the array whose npy begins where a file of this machine stands, as a map of the file.

  Raises:
    ValueError: there is no whole npy, or its array is in Fortran order.
  """
  version = np.lib.format.read_magic(file)
  read_header = (
    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
  )
  shape, in_columns, dtype = read_header(file)
  if in_columns:
    raise ValueError('it is in Fortran order')
  return np.memmap(file, dtype, 'r', file.tell(), shape)


def write_json(path: epath.PathLike, value: Any) -> None:
  """Writes a value as JSON, whole or not at all."""
  write_atomic(path, json_text(value))


def json_text(value: Any) -> str:
  """Returns what `write_json` writes."""
  return json.dumps(value, indent=2) + '\n'


def read_json(path: epath.PathLike) -> Any:
  """Returns the value that a JSON file holds.

  Raises:
    InputError: the file is not there, or is no JSON.
  """
  try:
    return json.loads(epath.Path(path).read_text())
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
