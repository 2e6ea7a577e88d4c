"""Images of an earlier version of a generated data set, which a larger one can use again.

When more images of a class, or more classes, are wanted, the shards that are there are set aside in
`previous/`. Images that would be drawn the same again, by the same weights and settings from the same prompt,
are copied from there, byte for byte.
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.data.records import Record, ShardSource

_PLAN = 'plan.json'
# of a plan: what image files are like
_FORM = ('image_format', 'quality')


def set_aside(path: pathlib.Path, plan: dict[str, Any]) -> None:
  """Moves the shards below `path` into `previous/` if they are of another plan, and writes this one down.

  Several workers may do so at once. `plan` is JSON: all that says which images are in which shard.
  """
  if (path / _PLAN).exists():
    before = read_json(path / _PLAN)
    if before == plan:
      return
    is_same_form = all(before.get(key) == plan.get(key) for key in _FORM)
    for folder in [folder for folder in path.iterdir() if folder.name.isdigit()]:
      target = path / 'previous' / folder.name
      if is_same_form:
        target.parent.mkdir(exist_ok=True)
        # what was set aside before goes on to be used; what was being made in the meantime is made again
        with contextlib.suppress(OSError):
          folder.rename(target)
      shutil.rmtree(folder, ignore_errors=True)
    if not is_same_form:
      shutil.rmtree(path / 'previous', ignore_errors=True)
    (path / 'manifest.json').unlink(missing_ok=True)
  write_json(path / _PLAN, plan)


class KeptImages:
  """The images that were set aside below a data set's folder, by what they are of."""

  def __init__(self, path: pathlib.Path):
    self._path = path / 'previous'
    self._sources: dict[int, ShardSource] = {}
    # (class, index within it) -> size -> number in its source
    self._places: dict[tuple[str, int], dict[int, int]] = {}
    for folder in sorted(self._path.iterdir()) if self._path.is_dir() else ():
      size = int(folder.name)
      self._sources[size] = ShardSource(sorted(folder.glob('*.tfrecord')))
      for number in range(len(self._sources[size])):
        place = _place(self._sources[size].fields(number))
        self._places.setdefault(place, {})[size] = number

  def find(self, wanted: Mapping[str, Any], sizes: Iterable[int]) -> dict[int, Record] | None:
    """Returns the record of each size of an image that would be drawn so; None if not all are there.

    Args:
      wanted: the fields of `Record` but the image.
      sizes: heights of the images.
    """
    places, records = self._places.get(_place(wanted), {}), {}
    for size in sizes:
      if size not in places:
        return None
      example = self._sources[size][places[size]]
      if _drawn_by(example) != _drawn_by(wanted):
        return None
      records[size] = Record(example['image'], encoded=example['encoded'], **wanted)
    return records

  def delete(self) -> None:
    """Deletes what was set aside, when all that is wanted is there."""
    shutil.rmtree(self._path, ignore_errors=True)


def _place(fields: Mapping[str, Any]) -> tuple[str, int]:
  """Returns what an image is of; its label is left out, as it changes when classes are added."""
  return fields['wnid'] or fields['class_name'], fields['index']


def _drawn_by(fields: Mapping[str, Any]) -> str:
  """Returns all that an image is a function of, besides what it is of."""
  return json.dumps([fields[name] for name in ('seed', 'prompt', 'stages')], sort_keys=True)
