"""Own data: a folder of images for each class, `DIRECTORY/SPLIT/CLASS/*.jpg`.

All files are decoded once, when the folder is first used. Those that can't be are named and left out;
the list of the others is kept, so that they aren't decoded for this again.
"""

import hashlib
import pathlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json, write_json
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.decode import decode_image

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class FolderSource:
  """Random access to the examples of one split: `image` uint8 [H, W, 3], `label`, `file_name`.

  Labels are places in the sorted list of classes. Examples are in an order that is random but fixed,
  so that a slice of them holds all classes.

  Args:
    directory: holds the splits. split: a folder of it, or a part: 'train[100:]', 'train[:90%]'.
    cache_dir: where the list of good files is kept.

  Raises:
    InputError: there is no such folder, or nothing in it that can be decoded.
  """

  def __init__(self, directory: pathlib.Path, split: str, cache_dir: pathlib.Path):
    name, cut = _parse(split)
    self._root = directory / name
    if not self._root.is_dir():
      raise InputError(f'{self._root}: no such folder; expected a folder for each class in it')
    self.class_names = tuple(sorted(path.name for path in self._root.iterdir() if path.is_dir()))
    good = _good_files(self._root, self.class_names, cache_dir)
    self._files = cut(sorted(good, key=lambda file: hashlib.sha256(file.encode()).digest()))
    if not self._files:
      raise InputError(f'{self._root}: {split} has no images')
    self._labels = {name: label for label, name in enumerate(self.class_names)}
    self._status = {file: good[file] for file in self._files}

  @property
  def version(self) -> str:
    """Changes with the files: what was made of another version is out of date."""
    return json_hash(self._status)

  def class_counts(self) -> np.ndarray:
    """How many examples each class has: int [K]."""
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
  """The files that can be decoded, as paths below `root`, with their size and time of change."""
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
  try:
    decode_image(path.read_bytes(), 3, path.name)
  except InputError as error:
    return str(error).split(': ', 1)[1]
  return None


def _parse(split: str) -> tuple[str, Any]:
  """'train[10:50%]' -> the name, and what cuts a list so."""
  match = re.fullmatch(r'([^\[\]]+)(?:\[(\d+%?)?:(\d+%?)?\])?', split)
  if not match:
    raise InputError(f'split {split!r}: expected a folder, or a part of one such as train[:90%]')
  name, *ends = match.groups()

  def place(end, length):
    return end and (int(end[:-1]) * length // 100 if end.endswith('%') else int(end))

  return name, lambda files: files[slice(*(place(end, len(files)) for end in ends))]
