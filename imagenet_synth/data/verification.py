"""Checks that what finished jobs have left is as it was written, and repairs data sets that are not.

Each file must have the hash that SHA256SUMS of its folder says. Shards, besides, must hold what the manifest
and its plan say, and what is kept for all jobs must be readable: the CRC of its arrays is checked by that.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from etils import epath

from imagenet_synth.core.checksums import SUMS, fault_of, hash_path, read_sums
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import files_below, matching, read_arrays, read_json
from imagenet_synth.core.progress import progress
from imagenet_synth.data.records import read_shard
from imagenet_synth.data.shard_index import index_path
from imagenet_synth.data.shard_plan import Shard, plan_shards


class Fault(NamedTuple):
  """A file that is not as it should be."""

  path: epath.Path
  # what is wrong with it, as the end of a sentence
  what: str

  def __str__(self) -> str:
    return f'{self.path}: {self.what}'


class Check(NamedTuple):
  """A look at a file."""

  path: epath.Path
  # returns what is wrong with it, as the end of a sentence; None if nothing is
  fault: Callable[[], str | None]


def job_checks(folder: epath.Path) -> Iterator[Check]:
  """Yields a look at each file in the folder of a finished job, in the same order each time.

  Of generated data sets, each shard must have the hash that the manifest says, and hold the labels, indices
  and seeds of the plan in images that can be decoded. No other shard may be there.
  """
  sums: dict[str, str] = {}
  if (folder / SUMS).exists():
    try:
      sums = read_sums(folder)
    except InputError as error:
      yield _found(folder / SUMS, str(error).removeprefix(f'{folder / SUMS} '))
  else:
    yield _found(
      folder / SUMS, 'is missing, as in what earlier versions have left: only shards can be checked there'
    )
  shards: dict[epath.Path, str] = {}
  manifest_path = folder / 'manifest.json'
  digest = sums.get('manifest.json')
  if digest is None or fault_of(manifest_path, digest) is None:
    yield from _shard_checks(manifest_path, shards)
  yield from _sum_checks(folder, sums, shards)


def shared_checks(folder: epath.Path) -> Iterator[Check]:
  """Yields a look at each file of arrays in a folder that all jobs share, such as `references`."""
  for path in (folder / name for name, _ in files_below(folder) if name.endswith('.npz')):
    yield Check(path, functools.partial(_unreadable, path))


def faults(checks: Sequence[Check], what: str) -> Iterator[Fault]:
  """Yields the faults that looks at files find, in order; threads take the looks.

  Args:
    checks: what is to be done.
    what: the text in front of the progress bar.
  """
  pool = ThreadPoolExecutor((os.cpu_count() or 1) + 4)
  try:
    with progress(len(checks), what, unit='file') as bar:
      for check, found in zip(checks, pool.map(lambda check: check.fault(), checks)):
        if found:
          yield Fault(check.path, found)
        bar.update()
  finally:
    pool.shutdown(cancel_futures=True)


def repair(folder: epath.Path, faulty: Sequence[epath.Path]) -> None:
  """Deletes faulty files of a generated data set, and those that say that it is done: they are made again."""
  for path in faulty:
    for of_shard in (path, hash_path(path), index_path(path)):
      of_shard.unlink(missing_ok=True)
  if faulty:
    for name in ('job.json', 'manifest.json', SUMS):
      (folder / name).unlink(missing_ok=True)


def _found(path: epath.Path, what: str) -> Check:
  """Returns a look that was taken already, and what it has found."""
  return Check(path, lambda: what)


def _reason(error: InputError) -> str:
  """Returns what an error says of a file, without the file's name."""
  return str(error).split(': ', 1)[-1]


def _sum_checks(folder: epath.Path, sums: dict[str, str], shards: dict[epath.Path, str]) -> Iterator[Check]:
  """Yields a look at each file of a folder, but at shards of the manifest, which have been looked at."""
  for name, digest in sums.items():
    path = folder / name
    if shards.get(path) == digest:
      continue
    yield Check(path, functools.partial(fault_of, path, digest))
    if path.name == SUMS:
      try:
        below = read_sums(path.parent)
      except InputError:
        # the look at the file itself finds it
        continue
      yield from _sum_checks(path.parent, below, {})


def _shard_checks(path: epath.Path, hashes: dict[epath.Path, str]) -> Iterator[Check]:
  """Yields a look at each shard that a manifest names, if it is there, and adds its hash to `hashes`."""
  if not path.exists():
    return
  try:
    manifest = read_json(path)
  except InputError as error:
    yield _found(path, _reason(error))
    return
  folder, by_size = path.parent, manifest['shards']
  sizes = [int(size) for size in by_size]
  shards = plan_shards(folder, manifest['class_counts'], sizes, manifest['shard_size'])
  for size in sizes:
    for shard in shards:
      file = shard.files[size]
      digest = by_size[str(size)].get(file.name)
      if digest is None:
        # it is told with those that are not of the plan
        continue
      hashes[file] = digest
      yield Check(file, functools.partial(_shard_fault, shard, size, digest, manifest['seed']))
  for file in matching(folder, '*/*.tfrecord'):
    if file not in hashes:
      yield _found(file, 'is not in the manifest')


def _shard_fault(shard: Shard, size: int, digest: str, seed: int) -> str | None:
  """Returns what is wrong with a shard of a size, as the end of a sentence; None if nothing is."""
  path = shard.files[size]
  fault = fault_of(path, digest)
  if fault:
    return fault
  try:
    # without its index, which would be made again where it is damaged, and that is a fault to be told
    held = [
      (example['label'], example['index'], example['seed'], example['image'].shape[:2])
      for example in read_shard(path)
    ]
  except InputError as error:
    return _reason(error)
  if len(held) != len(shard):
    return f'holds {len(held)} images, {len(shard)} of the plan'
  wanted = [(int(label), int(index), seed, (size, size)) for label, index in zip(shard.labels, shard.indices)]
  for number, (is_held, is_wanted) in enumerate(zip(held, wanted)):
    if is_held != is_wanted:
      return f'record {number} is (label, index, seed, size) {is_held}, {is_wanted} in the plan'
  return None


def _unreadable(path: epath.Path) -> str | None:
  """Returns why the arrays of a file cannot be read; None if they can."""
  try:
    read_arrays(path)
  except InputError as error:
    return str(error).removeprefix(f'{path} ')
  return None
