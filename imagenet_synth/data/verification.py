"""Checks that a generated data set is what its manifest and its plan say, and repairs it if not."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json
from imagenet_synth.core.progress import progress
from imagenet_synth.data.records import ShardSource, hash_path
from imagenet_synth.data.shard_index import index_path
from imagenet_synth.data.shard_plan import Shard, plan_shards


class Fault(NamedTuple):
  """A shard that is not as it should be."""

  path: pathlib.Path
  # what is wrong with it, as the end of a sentence
  what: str

  def __str__(self) -> str:
    return f'{self.path}: {self.what}'


def num_shards(folder: pathlib.Path) -> int:
  """Returns how many shards `verify` checks in the folder of a generate job.

  Raises:
    InputError: the folder has no manifest, as generate has not ended there.
  """
  return sum(map(len, _manifest(folder)['shards'].values()))


def verify(folder: pathlib.Path) -> list[Fault]:
  """Returns all faults in the folder of a finished generate job.

  Each shard of the manifest must be there, have the hash that the manifest says, and hold the labels,
  indices and seeds of the plan in images that can be decoded. No other shard may be there.

  Raises:
    InputError: the folder has no manifest, as generate has not ended there.
  """
  manifest = _manifest(folder)
  sizes = [int(size) for size in manifest['shards']]
  shards = plan_shards(folder, manifest['class_counts'], sizes, manifest['shard_size'])
  faults = []
  with progress(len(shards) * len(sizes), f'verify {folder}', unit='shard') as bar:
    for size in sizes:
      for shard in shards:
        path = shard.files[size]
        fault = _fault(path, manifest['shards'][str(size)].get(path.name), _wanted(shard, size, manifest))
        if fault:
          faults.append(Fault(path, fault))
        bar.update(1)
  return faults + list(_unplanned(folder, manifest))


def repair(folder: pathlib.Path, faults: list[Fault]) -> None:
  """Deletes faulty shards, and the files that say that the job is done: generate makes them again."""
  for fault in faults:
    fault.path.unlink(missing_ok=True)
    hash_path(fault.path).unlink(missing_ok=True)
    index_path(fault.path).unlink(missing_ok=True)
  if faults:
    (folder / 'job.json').unlink(missing_ok=True)
    (folder / 'manifest.json').unlink(missing_ok=True)


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
  if not (folder / 'manifest.json').exists():
    raise InputError(f'{folder}: no manifest.json; run generate to its end first')
  return read_json(folder / 'manifest.json')


def _wanted(shard: Shard, size: int, manifest: dict[str, Any]) -> list[tuple[Any, ...]]:
  """Returns (label, index, seed, (height, width)) of each image that the shard must hold."""
  return [
    (int(label), int(index), manifest['seed'], (size, size))
    for label, index in zip(shard.labels, shard.indices)
  ]


def _fault(path: pathlib.Path, expected_hash: str | None, wanted: list[tuple[Any, ...]]) -> str | None:
  """Returns what is wrong with a shard, as the end of a sentence; None if nothing is."""
  if not path.exists():
    return 'is missing'
  if expected_hash is None:
    # it is told with those that are not of the plan
    return None
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if digest != expected_hash:
    return 'was altered or cut off: its SHA-256 is not that of the manifest'
  try:
    source = ShardSource([path])
    held = [
      (example['label'], example['index'], example['seed'], example['image'].shape[:2])
      for example in (source[i] for i in range(len(source)))
    ]
  except InputError as error:
    return str(error).split(': ', 1)[-1]
  if len(held) != len(wanted):
    return f'holds {len(held)} images, {len(wanted)} of the plan'
  for number, (is_held, is_wanted) in enumerate(zip(held, wanted)):
    if is_held != is_wanted:
      return f'record {number} is (label, index, seed, size) {is_held}, {is_wanted} in the plan'
  return None


def _unplanned(folder: pathlib.Path, manifest: dict[str, Any]) -> Iterator[Fault]:
  """Yields a fault for each shard that the manifest does not name."""
  for path in sorted(folder.glob('*/*.tfrecord')):
    if path.name not in manifest['shards'].get(path.parent.name, {}):
      yield Fault(path, 'is not in the manifest')
