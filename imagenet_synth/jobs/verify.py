"""Whether a data set is what its manifest and its plan say, down to each byte; and its repair."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json
from imagenet_synth.core.progress import progress
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs.generate import hash_path
from imagenet_synth.jobs.plan import class_plan


class Fault(NamedTuple):
  """A shard that is not as it should be."""

  path: pathlib.Path
  what: str

  def __str__(self) -> str:
    return f'{self.path}: {self.what}'


def verify(folder: pathlib.Path) -> list[Fault]:
  """All faults of a finished generate job's folder.

  Each shard of the manifest must be there, have its hash, and hold the labels, indices and seeds of the
  plan in images that can be decoded; no other shard may be.

  Raises:
    InputError: the folder has no manifest, as generate has not ended there.
  """
  if not (folder / 'manifest.json').exists():
    raise InputError(f'{folder}: no manifest.json; run generate to its end first')
  manifest = read_json(folder / 'manifest.json')
  labels, indices = class_plan(manifest['class_counts'])
  faults = []
  shards = [(size, name) for size in manifest['shards'] for name in manifest['shards'][size]]
  with progress(len(shards), f'verify {folder}', unit='shard') as bar:
    for size, name in shards:
      number = int(name.split('-')[1])
      rows = slice(number * manifest['shard_size'], (number + 1) * manifest['shard_size'])
      wanted = [
        (int(label), int(index), manifest['seed'], (int(size), int(size)))
        for label, index in zip(labels[rows], indices[rows])
      ]
      path = folder / size / name
      fault = _fault(path, manifest['shards'][size][name], wanted)
      faults += [Fault(path, fault)] if fault else []
      bar.update(1)
  return faults + list(_unplanned(folder, manifest))


def repair(folder: pathlib.Path, faults: list[Fault]) -> None:
  """Deletes faulty shards, and what says that the job is done: generate makes them again."""
  for fault in faults:
    fault.path.unlink(missing_ok=True)
    hash_path(fault.path).unlink(missing_ok=True)
  if faults:
    (folder / 'job.json').unlink(missing_ok=True)
    (folder / 'manifest.json').unlink(missing_ok=True)


def _fault(path: pathlib.Path, expected_hash: str, wanted: list[tuple[Any, ...]]) -> str | None:
  if not path.exists():
    return 'is missing'
  if hashlib.sha256(path.read_bytes()).hexdigest() != expected_hash:
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
  for path in sorted(folder.glob('*/*.tfrecord')):
    if path.name not in manifest['shards'].get(path.parent.name, {}):
      yield Fault(path, 'is not in the manifest')
