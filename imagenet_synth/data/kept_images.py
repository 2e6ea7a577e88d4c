"""Images of an earlier version of a generated data set, which a larger one can use again.

When more images of a class, or more classes, are wanted, the shards that are there are set aside in
`previous/`. Images that would be drawn the same again, by the same weights and settings from the same prompt,
are copied from there, byte for byte.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.core.files import delete_tree, make_folder, matching, move_folder, read_json, write_json
from imagenet_synth.data.records import Record, ShardSource

_PLAN = 'plan.json'
# of a plan: what image files are like
_FORM = ('image_format', 'jpeg_sizes', 'quality')


def set_aside(path: epath.Path, plan: dict[str, Any]) -> None:
  """Moves the shards below `path` into `previous/` if they are of another plan, and writes this one down.

  Several workers may do so at once. `plan` is JSON: all that says which images are in which shard.
  """
  if (path / _PLAN).exists():
    before = read_json(path / _PLAN)
    if before == plan:
      return
    is_same_form = all(before.get(key) == plan.get(key) for key in _FORM)
    for folder in [folder for folder in matching(path, '*') if folder.name.isdigit()]:
      target = path / 'previous' / folder.name
      if is_same_form:
        make_folder(target.parent)
        # what was set aside before goes on to be used; what was being made in the meantime is made again
        with contextlib.suppress(OSError):
          move_folder(folder, target)
      delete_tree(folder)
    if not is_same_form:
      delete_tree(path / 'previous')
    (path / 'manifest.json').unlink(missing_ok=True)
  write_json(path / _PLAN, plan)


class KeptImages:
  """The images that were set aside below a data set's folder, by what they are of."""

  def __init__(self, path: epath.Path):
    self._path = path / 'previous'
    # by their size
    self._sets: dict[int, _KeptSet] = {}
    for folder in (path for path in matching(self._path, '*') if path.name.isdigit()):
      self._sets[int(folder.name)] = _KeptSet(ShardSource(matching(folder, '*.tfrecord')))

  def find(self, wanted: Mapping[str, Any], sizes: Iterable[int]) -> dict[int, int] | None:
    """Returns where an image that would be drawn so is at each size, for `read`; None if not all are there.

    Args:
      wanted: the fields of `Record` but the image.
      sizes: heights of the images.
    """
    if not self._sets.keys() >= set(sizes):
      return None
    rows = {size: self._sets[size].find(wanted) for size in sizes}
    return {size: row for size, row in rows.items() if row is not None} if None not in rows.values() else None

  def read(self, size: int, row: int, wanted: Mapping[str, Any]) -> Record:
    """Returns the record of an image that `find` has found, as one of the data set that is being made."""
    example = self._sets[size].source[row]
    return Record(example['image'], encoded=example['encoded'], **wanted)

  def delete(self) -> None:
    """Deletes what was set aside, when all that is wanted is there."""
    delete_tree(self._path)


class _KeptSet:
  """The images of one size: 16 bytes of memory for each, and one of each class is read to know its name."""

  def __init__(self, source: ShardSource):
    self.source = source
    labels, indices = source.places()
    keys = _key(labels, indices)
    # the images in the order of their keys
    self._rows = np.argsort(keys, kind='stable')
    self._keys = keys[self._rows]
    first_labels, firsts = np.unique(labels, return_index=True)
    named = zip(first_labels.tolist(), firsts.tolist())
    self._labels = {_class_id(source.fields(row)): label for label, row in named}

  def find(self, wanted: Mapping[str, Any]) -> int | None:
    """Returns the row of the image that would be drawn so; None if there is none. No image is decoded."""
    # not the label that is wanted: it changes when classes are added
    label = self._labels.get(_class_id(wanted))
    if label is None:
      return None
    key = _key(label, wanted['index'])
    place = int(np.searchsorted(self._keys, key))
    if place == len(self._keys) or self._keys[place] != key:
      return None
    row = int(self._rows[place])
    return row if _drawn_by(self.source.fields(row)) == _drawn_by(wanted) else None


def _key(labels: Any, indices: Any) -> Any:
  """Returns one number, int64, for a label and a number within the class, of one image or of each."""
  return np.asarray(labels, np.int64) << 32 | indices


def _class_id(fields: Mapping[str, Any]) -> str:
  """Returns what names an image's class."""
  return fields['wnid'] or fields['class_name']


def _drawn_by(fields: Mapping[str, Any]) -> str:
  """Returns all that an image is a function of, and what it is of."""
  of = [fields[name] for name in ('index', 'seed', 'prompt', 'stages')]
  return json.dumps([_class_id(fields), *of], sort_keys=True)
