"""Data sets that are a folder of image files for each class: `DIRECTORY/SPLIT/CLASS/*.jpg`.

All files are read and decoded once, when the folder is first used. Those that can't be are named and left
out, and so is all else that is no image of a class. What was found, with the sizes of the images, is kept in
a file, so that a file that has not changed isn't read for this again.
"""

import collections
import dataclasses
import hashlib
import os
import re
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import (
  absolute,
  entries,
  files_below,
  json_hash,
  make_folder,
  read_json,
  write_json,
)
from imagenet_synth.core.progress import progress, say_once
from imagenet_synth.data.class_names import NAMES_FILE
from imagenet_synth.data.decode import Picture, decode_image
from imagenet_synth.data.source import Contents, LeftOut, Sides, Source, first_names, parse_split

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
"""The endings, in small letters, of files that are taken for images."""

# categories of characters that no class has in its name: control characters, ends of lines and paragraphs,
# and what stands for bytes that are no text
_NOT_IN_NAMES = ('Cc', 'Zl', 'Zp', 'Cs')
# what stands for bytes of a file's name that are no text
_NO_TEXT = re.compile('[\ud800-\udfff]')
# seconds between saves while files are checked
_SAVED_EVERY = 120


def folder_contents(directory: epath.Path, wanted: str | None = None) -> dict[str, Contents]:
  """Returns what is in each split of a directory, by its name, as far as the names of files tell.

  Args:
    directory: holds a folder for each split.
    wanted: the split that is looked at, if not all are: others may be anything, and large.

  Raises:
    InputError: the directory is not there, no split with images is in it, or a class has a name that is no
      line of text.
  """
  if not directory.is_dir():
    raise InputError(f'{directory}: no such folder; expected SPLIT/CLASS/FILE in it')
  splits = [path for path, is_folder in entries(directory) if is_folder and not _is_hidden(path)]
  contents = {split.name: Contents() for split in splits}
  looked_at = [split for split in splits if wanted is None or split.name == wanted]
  for split in looked_at:
    classes = _list(split).classes
    counts = tuple(map(len, classes.values()))
    contents[split.name] = Contents(None, tuple(classes), (), 3, class_counts=counts)
  is_empty = not any(contents[split.name].class_names for split in looked_at)
  if is_empty and (looked_at or not splits):
    raise InputError(
      f'{directory}: no images in it as {wanted or "SPLIT"}/CLASS/FILE ({", ".join(SUFFIXES)})'
    )
  return contents


@dataclasses.dataclass(frozen=True)
class _Listing:
  """What is in the folder of a split."""

  # class -> its files as paths below the split's folder, with their `FileState` as JSON holds it
  classes: dict[str, dict[str, list[int | str]]]
  # what is left out, as far as names tell
  left_out: list[LeftOut]


def _list(root: epath.Path) -> _Listing:
  """Returns the images of each class; a folder is a class if it holds an image and is not hidden."""
  classes: dict[str, dict[str, list[int | str]]] = {}
  unread: collections.Counter[str] = collections.Counter()
  loose, empty, unnamed = [], [], []
  for entry, is_folder in entries(root):
    if _is_hidden(entry):
      continue
    if not is_folder:
      if entry.name != NAMES_FILE:
        loose.append(entry.name)
      continue
    if any(unicodedata.category(character) in _NOT_IN_NAMES for character in entry.name):
      raise InputError(
        f'{root}: the class {entry.name!r} has a line break or another control character in its name; rename '
        'the folder'
      )
    files = {}
    for name, state in files_below(entry):
      # not as a path: there may be millions
      file = name.rpartition('/')[2]
      suffix = os.path.splitext(file)[1].lower()
      if file.startswith('.'):
        continue
      if suffix not in SUFFIXES:
        unread[suffix or 'no ending'] += 1
        continue
      if _NO_TEXT.search(name):
        unnamed.append(f'{entry.name}/{name}'.encode(errors='backslashreplace').decode())
        continue
      files[f'{entry.name}/{name}'] = list(state)
    if files:
      classes[entry.name] = files
    else:
      empty.append(entry.name)
  kinds = [f'{number} {suffix}' for suffix, number in unread.most_common()]
  found = (
    (unread.total(), 'file', 'of a format that is not read', ', '.join(kinds)),
    (len(unnamed), 'file', 'with a name that is not in UTF-8', first_names(unnamed)),
    (len(loose), 'file', 'beside the class folders', first_names(loose)),
    (len(empty), 'folder', 'without images', first_names(empty)),
  )
  left_out = [
    LeftOut(str(root), f'{num} {of}{"s" if num > 1 else ""} {which_are}', which)
    for num, of, which_are, which in found
    if num
  ]
  return _Listing(classes, left_out)


def _is_hidden(path: epath.Path) -> bool:
  return path.name.startswith('.')


class FolderSource(Source):
  """Random access to the examples of one split: `image` uint8 [H, W, 3], `label` int, `file_name` str.

  Labels are places in the sorted list of classes. Examples are in an order that is random but fixed,
  so that a slice of them holds all classes.

  Args:
    directory: holds a folder for each split.
    split: the name of a split, or a part of one: 'train[100:]', 'train[:90%]'.
    cache_dir: where it is kept which files can be decoded.
    keep: whether that is written there, and said; else nothing is left.

  Raises:
    InputError: there is no such folder, nothing in it that can be decoded, or nothing of a class.
  """

  def __init__(self, directory: epath.Path, split: str, cache_dir: epath.Path, keep: bool = True):
    part = parse_split(split)
    self._root = directory / part.name
    if not self._root.is_dir():
      raise InputError(f'{self._root}: no such folder; expected a folder for each class in it')
    listing = _list(self._root)
    self.class_names: tuple[str, ...] = tuple(listing.classes)
    good, broken = _checked_files(self._root, listing, cache_dir, keep)
    self.left_out = (*listing.left_out, *broken)
    found = {file.partition('/')[0] for file in good}
    for name in self.class_names:
      if name not in found:
        raise InputError(f'{self._root}: none of the images of the class {name!r} can be decoded')
    in_order = sorted(good, key=lambda file: hashlib.sha256(file.encode()).digest())
    try:
      files = [in_order[row] for row in part.rows(len(in_order))]
    except InputError as error:
      raise InputError(f'{self._root}: {error}') from None
    # as an array, which worker processes share
    self._files = np.array([file.encode() for file in files])
    self._labels = {name: label for label, name in enumerate(self.class_names)}
    self._looks = {file: good[file] for file in files}

  def __getstate__(self) -> dict[str, Any]:
    # worker processes read, and need nothing that was found out before
    return {name: value for name, value in self.__dict__.items() if name != '_looks'}

  @property
  def version(self) -> str:
    """Returns a text that changes with the names and the contents of the files."""
    return json_hash({file: look.digest for file, look in self._looks.items()})

  def labels(self) -> np.ndarray:
    """Returns the label of each example, int32 [N], without reading any."""
    return np.array([self._labels[_class(file)] for file in self._files], np.int32)

  def sides(self, cache_dir: epath.Path) -> Sides:
    """Returns how large the images are, which was found when they were checked."""
    del cache_dir
    sides = np.array([look.side for look in self._looks.values()], np.int32)
    return Sides(sides, self._files)

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self.undecoded(index)
    return {**example, 'image': example['image'].pixels()}

  def undecoded(self, index: int) -> dict[str, Any]:
    name = self._files[index].decode()
    path = self._root / name
    return {
      'image': Picture(path.read_bytes(), 3, str(path)),
      'file_name': name,
      'label': self._labels[_class(self._files[index])],
    }


def _class(file: bytes) -> str:
  """Returns the class that a file is of, given its path below the split's folder."""
  return file.partition(b'/')[0].decode()


class _Look(NamedTuple):
  """What a look at a file tells."""

  # of what it holds; empty if it cannot be read
  digest: str
  # why it cannot be decoded; None if it can
  fault: str | None
  # the image's shorter side in pixels; 0 if it cannot be decoded
  side: int


def _checked_files(
  root: epath.Path, listing: _Listing, cache_dir: epath.Path, keep: bool
) -> tuple[dict[str, _Look], list[LeftOut]]:
  """Returns the files that can be decoded, as paths below `root`, with what a look tells; and the others."""
  files = {file: status for of_class in listing.classes.values() for file, status in of_class.items()}
  where = hashlib.sha256(str(absolute(root)).encode()).hexdigest()[:16]
  cache = cache_dir / f'folder-{root.name}-{where}.json'
  known = read_json(cache)['files'] if cache.exists() else {}
  # a file that was changed is looked at again, and one that could not be read, or of which no size was kept
  checked = {
    file: _Look(*known[file][2:])
    for file, status in files.items()
    if known.get(file, [])[:2] == status and len(known[file]) == 2 + len(_Look._fields) and known[file][2]
  }

  def save() -> None:
    make_folder(cache_dir)
    write_json(
      cache, {'root': str(root), 'files': {file: [*files[file], *checked[file]] for file in checked}}
    )

  unknown = [file for file in files if file not in checked]
  if unknown:
    saved = time.monotonic()
    start = len(checked)
    with progress(len(files), f'checking {root}', start=start) as bar, ThreadPoolExecutor() as pool:
      for file, look in zip(unknown, pool.map(lambda file: _look_at(root / file), unknown)):
        checked[file] = look
        bar.update(1)
        if keep and time.monotonic() - saved > _SAVED_EVERY:
          save()
          saved = time.monotonic()
    if keep:
      save()
  in_order = sorted(checked.items())
  # by 'cannot be read' and 'cannot be decoded', which is said once for all
  faults: dict[str, list[str]] = {}
  for file, look in in_order:
    if look.fault:
      what, _, why = look.fault.partition(': ')
      faults.setdefault(what, []).append(f'{file}: {why}')
  broken = [
    LeftOut(str(root), f'{len(of)} of {len(files)} files that {what}', first_names(of))
    for what, of in faults.items()
  ]
  if keep and (listing.left_out or broken):
    texts = [f'{what} ({which}; all are in {cache})' for _, what, which in broken]
    say_once(f'{root}: left out: {"; ".join([*map(str, listing.left_out), *texts])}')
  return {file: look for file, look in in_order if not look.fault}, broken


def _look_at(path: epath.Path) -> _Look:
  """Reads and decodes a file."""
  try:
    data = path.read_bytes()
  except OSError as error:
    return _Look('', f'cannot be read: {error.strerror}', 0)
  digest = hashlib.sha256(data).hexdigest()[:16]
  try:
    pixels = decode_image(data, 3, path.name)
  except InputError as error:
    return _Look(digest, str(error).split(': ', 1)[1], 0)
  return _Look(digest, None, min(pixels.shape[:2]))
