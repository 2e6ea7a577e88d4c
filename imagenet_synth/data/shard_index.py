"""Where the records of a shard are, and what they are of, in a file beside it: what takes no look at images.

SHARD.index holds the columns of a `ShardIndex` one after the other, little-endian, 16 bytes a record, behind
a mark of the form and before a CRC32C of all that. It is written with the shard. Where a shard has none, or
one that cannot be its own, it is made by reading the shard once. So a data set of 12,000 shards is opened by
reading as many files of a few KB; a look at each of its records would take hours on a network disk.
"""

import collections
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import google_crc32c
import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import size_of, write_atomic
from imagenet_synth.core.progress import progress, say_once
from imagenet_synth.data import tfrecord

T = TypeVar('T')

LABEL, INDEX = 'image/class/label', 'index'
"""The features of a record that its shard's index has, too."""

_MARK, _CRC = b'shards_1', struct.Struct('<I')
_BYTES_EACH = 16
# files that are read at a time: they are small, and it is the answer of the disk that is waited for
_NUM_READERS = 32
# indices of shards whose folder cannot be written, by the shard
_in_memory: dict[epath.Path, 'ShardIndex'] = {}


class ShardIndex(NamedTuple):
  """What is known of the records of a shard, in their order; the arrays may be views of one buffer."""

  # the byte behind each record, uint64 [N]
  ends: np.ndarray
  # the label of each, int32 [N]
  labels: np.ndarray
  # the number of each within its class, int32 [N]
  indices: np.ndarray

  @classmethod
  def of(cls, records: Sequence[tuple[int, int, int]]) -> 'ShardIndex':
    """Returns the index of records of which (end, label, number within the class) are given."""
    ends, labels, indices = np.array(records, np.int64).reshape(-1, 3).T
    return cls(ends.astype('<u8'), labels.astype('<i4'), indices.astype('<i4'))


def index_path(shard: epath.Path) -> epath.Path:
  """Returns where a shard's index is."""
  return shard.with_name(f'{shard.name}.index')


def write_index(shard: epath.Path, index: ShardIndex) -> None:
  """Writes the index of a shard, whole or not at all."""
  data = _MARK + b''.join(column.tobytes() for column in index)
  write_atomic(index_path(shard), data + _CRC.pack(google_crc32c.value(data)))


def load_indices(shards: Sequence[epath.Path]) -> Iterator[tuple[int, ShardIndex]]:
  """Yields the number of each shard and its index: first of those that have one, then of those that had none.

  Indices that are missing or out of date are written, or where that cannot be, kept in memory.

  Raises:
    InputError: a shard is missing; or one without an index is damaged, or not of a generate job.
  """
  missing = []
  with ThreadPoolExecutor(_NUM_READERS) as pool:
    for number, index in enumerate(_ahead(pool, _read, shards)):
      if index is None:
        missing.append(number)
      else:
        yield number, index
    if missing:
      with progress(len(missing), f'index of {shards[missing[0]].parent}', unit='shard') as bar:
        for number, index in zip(missing, _ahead(pool, _make, [shards[number] for number in missing])):
          yield number, index
          bar.update()


def _ahead(
  pool: ThreadPoolExecutor, fn: Callable[[epath.Path], T], shards: Iterable[epath.Path]
) -> Iterator[T]:
  """Yields what a function returns for each shard, in order; not many are begun before they are asked for.

  So little is in memory, and whoever is stopped waits for what was begun alone.
  """
  pending: collections.deque[Future[T]] = collections.deque()
  for shard in shards:
    pending.append(pool.submit(fn, shard))
    if len(pending) > 2 * _NUM_READERS:
      yield pending.popleft().result()
  while pending:
    yield pending.popleft().result()


def missing_shard(shard: epath.Path) -> InputError:
  """Returns what is raised for a shard that is not there."""
  return InputError(f'{shard} is missing; --verify --repair lets generate make it again')


def _read(shard: epath.Path) -> ShardIndex | None:
  """Returns the index of a shard; None if there is none, or it is damaged or of a shard of another length."""
  try:
    size = size_of(shard)
  except FileNotFoundError:
    raise missing_shard(shard) from None
  try:
    written = _parsed(index_path(shard).read_bytes())
  except FileNotFoundError:
    written = None
  for index in (written, _in_memory.get(shard)):
    if index is not None and (int(index.ends[-1]) if len(index.ends) else 0) == size:
      return index
  return None


def _parsed(data: bytes) -> ShardIndex | None:
  """Returns an index as its file has it; None if the file is damaged."""
  num, rest = divmod(len(data) - len(_MARK) - _CRC.size, _BYTES_EACH)
  if num < 0 or rest or not data.startswith(_MARK):
    return None
  if _CRC.unpack(data[-_CRC.size :])[0] != google_crc32c.value(data[: -_CRC.size]):
    return None
  start = len(_MARK)
  ends = np.frombuffer(data, '<u8', num, start)
  labels, indices = np.frombuffer(data, '<i4', 2 * num, start + 8 * num).reshape(2, num)
  return ShardIndex(ends, labels, indices)


def _make(shard: epath.Path) -> ShardIndex:
  """Returns the index of a shard by reading all of it, and keeps it."""
  records = [
    (end, _number(features, LABEL, shard, number), _number(features, INDEX, shard, number))
    for number, (end, features) in enumerate(tfrecord.records(shard))
  ]
  index = ShardIndex.of(records)
  try:
    write_index(shard, index)
  except OSError as error:
    say_once(f'{shard.parent}: indices of shards are kept in memory, not written ({error.strerror})')
    _in_memory[shard] = index
  return index


def _number(features: tfrecord.Features, name: str, shard: epath.Path, number: int) -> int:
  """Returns the number that a record has by a name."""
  values = features[name].int64_list.value
  if len(values) != 1 or not -(2**31) <= values[0] < 2**31:
    raise InputError(f'{shard}: record {number} has no number {name!r}: it is not of a generate job')
  return values[0]
