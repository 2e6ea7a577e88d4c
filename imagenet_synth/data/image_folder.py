"""Data sets that are a folder of image files for each class: `DIRECTORY/SPLIT/CLASS/*.jpg`.

All files are decoded once, when the folder is first used. Those that can't be are named and left out.
What was found is kept in a file, so that a file that has not changed isn't decoded for this again.
"""

import hashlib
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json, write_json
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.decode import decode_image
from imagenet_synth.data.source import Contents, Source, parse_split

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
"""The endings, in small letters, of files that are taken for images."""


def folder_contents(directory: pathlib.Path) -> dict[str, Contents]:
  """Returns what is in each split of a directory, by its name, as far as the names of folders tell.

  Raises:
    InputError: the directory is not there, or no split is in it.
  """
  if not directory.is_dir():
    raise InputError(f'{directory}: no such folder; expected SPLIT/CLASS/FILE in it')
  splits = sorted(path for path in directory.iterdir() if path.is_dir())
  if not splits:
    raise InputError(f'{directory}: no folder in it; expected SPLIT/CLASS/FILE')
  return {split.name: Contents(None, _class_names(split), ()) for split in splits}


def _class_names(root: pathlib.Path) -> tuple[str, ...]:
  return tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))


class FolderSource(Source):
  """Random access to the examples of one split: `image` uint8 [H, W, 3], `label` int, `file_name` str.

  Labels are places in the sorted list of classes. Examples are in an order that is random but fixed,
  so that a slice of them holds all classes.

  Args:
    directory: holds a folder for each split.
    split: the name of a split, or a part of one: 'train[100:]', 'train[:90%]'.
    cache_dir: where it is kept which files can be decoded.

  Raises:
    InputError: there is no such folder, or nothing in it that can be decoded.
  """

  def __init__(self, directory: pathlib.Path, split: str, cache_dir: pathlib.Path):
    part = parse_split(split)
    self._root = directory / part.name
    if not self._root.is_dir():
      raise InputError(f'{self._root}: no such folder; expected a folder for each class in it')
    self.class_names: tuple[str, ...] = _class_names(self._root)
    good = _good_files(self._root, self.class_names, cache_dir)
    in_order = sorted(good, key=lambda file: hashlib.sha256(file.encode()).digest())
    try:
      self._files = [in_order[row] for row in part.rows(len(in_order))]
    except InputError as error:
      raise InputError(f'{self._root}: {error}') from None
    self._labels = {name: label for label, name in enumerate(self.class_names)}
    self._status = {file: good[file] for file in self._files}

  @property
  def version(self) -> str:
    """Returns a text that changes with the files: what was made of another version is out of date."""
    return json_hash(self._status)

  def class_counts(self) -> np.ndarray:
    """Returns how many examples each class has: int [K]."""
    labels = [self._labels[file.split('/')[0]] for file in self._files]
    return np.bincount(labels, minlength=len(self.class_names))

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    file = self._files[index]
    path = self._root / file
    return {
      'image': decode_image(path.read_bytes(), 3, str(path)),
      'file_name': file,
      'label': self._labels[file.split('/')[0]],
    }


def _good_files(
  root: pathlib.Path, class_names: tuple[str, ...], cache_dir: pathlib.Path
) -> dict[str, list[int]]:
  """Returns the files that can be decoded: {path below `root`: [size, time of its last change]}."""
  files = {}
  for name in class_names:
    for path in (root / name).rglob('*'):
      if path.suffix.lower() in SUFFIXES and path.is_file():
        status = path.stat()
        files[path.relative_to(root).as_posix()] = [status.st_size, status.st_mtime_ns]
  where = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
  cache = cache_dir / f'folder-{root.name}-{where}.json'
  known = read_json(cache) if cache.exists() else {}
  # a file that was changed is looked at again
  checked = {
    file: known['faults'][file]
    for file, status in files.items()
    if known and known['files'].get(file) == status
  }
  unknown = [file for file in files if file not in checked]
  if unknown:
    with progress(len(unknown), f'checking {root}') as bar, ThreadPoolExecutor() as pool:
      for file, fault in zip(unknown, pool.map(lambda file: _fault(root / file), unknown)):
        checked[file] = fault
        bar.update(1)
    cache_dir.mkdir(parents=True, exist_ok=True)
    write_json(cache, {'root': str(root), 'files': files, 'faults': checked})
  broken = {file: fault for file, fault in checked.items() if fault}
  if broken:
    first = ', '.join(f'{file} ({fault})' for file, fault in list(broken.items())[:5])
    say(
      f'{root}: {len(broken)} of {len(files)} files cannot be decoded and are left out: {first}'
      f'{", ..." if len(broken) > 5 else ""}; all are named in {cache}'
    )
  return {file: files[file] for file, fault in checked.items() if not fault}


def _fault(path: pathlib.Path) -> str | None:
  """Returns why a file cannot be decoded; None if it can."""
  try:
    decode_image(path.read_bytes(), 3, path.name)
  except InputError as error:
    return str(error).split(': ', 1)[1]
  return None
