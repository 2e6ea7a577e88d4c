"""Generated images in TFRecord shards: a shard is there whole or not at all, and is read in any order."""

import collections
import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.core import checksums
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import RandomAccess, make_folder, open_atomic
from imagenet_synth.data import shard_index, tfrecord
from imagenet_synth.data.decode import Picture, as_picture, decode_image
from imagenet_synth.data.example_form import Example
from imagenet_synth.data.shard_index import ShardIndex, index_path, missing_shard
from imagenet_synth.data.source import Examples

# of one source: the usual limit of a process is 1,024 files, that of some systems 256
_MAX_OPEN_FILES = 64
# images of a shard that wait to be encoded and written: 85 of 1024x1024
_MAX_PENDING_BYTES = 2**28


class Record(NamedTuple):
  """A generated image, what it is of, and what it was made with."""

  # uint8 [H, W, C]
  image: np.ndarray
  # the number of its class
  label: int
  # its class as people call it
  class_name: str
  # its number within the class; the field takes the place of a method of tuples, which nobody calls here
  index: int  # type: ignore[assignment]
  # of the generate job
  seed: int
  # what the cascade was told
  prompt: str
  # settings and weights of each stage, as JSON can hold them
  stages: Any
  # the WordNet id of its class; '' if it is not known by one
  wnid: str = ''
  # the image's file, if it is there already; else it is encoded
  encoded: bytes | None = None


class Field(NamedTuple):
  """Where a record keeps a field of `Record`."""

  # the name of the feature in the tf.train.Example
  feature: str
  # an integer, a text, or anything as JSON
  kind: Literal['int', 'text', 'json']


FIELDS = {
  'label': Field(shard_index.LABEL, 'int'),
  'class_name': Field('image/class/text', 'text'),
  'wnid': Field('image/class/synset', 'text'),
  'index': Field(shard_index.INDEX, 'int'),
  'seed': Field('seed', 'int'),
  'prompt': Field('prompt', 'text'),
  'stages': Field('stages', 'json'),
}
"""What a record holds besides the image: a field of `Record` -> where it is."""


def shard_name(shard: int, num_shards: int) -> str:
  """Returns the file name of a shard, as TFDS has it; shards count from 0."""
  return f'train-{shard:05d}-of-{num_shards:05d}.tfrecord'


@contextlib.contextmanager
def open_shard(
  path: epath.Path, image_format: str = 'png', quality: int = 95, keep_hash: bool = False
) -> Iterator[Callable[[Record], None]]:
  """Opens a shard to be written, and yields a function that appends a record to it.

  The shard is there, whole, when the context has ended without an error, and its index beside it; equal
  records give equal bytes. Images are encoded in threads. A few of them are in memory, however many records
  there are.

  Args:
    path: the shard's file; its folder is made if it is not there.
    image_format: 'png' or 'jpeg'.
    quality: of JPEG, up to 100.
    keep_hash: write the shard's hash beside it as well, for `kept_hash`.
  """
  make_folder(path.parent)
  with open_atomic(path) as file:
    writer = _Writer(file, image_format, quality)
    yield writer.append
    writer.write_all()
    # first: a process that is killed meanwhile must not leave the index of the shard that was there before
    index_path(path).unlink(missing_ok=True)
  shard_index.write_index(path, ShardIndex.of(writer.places))
  if keep_hash:
    checksums.keep_hash(path, writer.digest.hexdigest())


def write_shard(
  path: epath.Path,
  records: Iterable[Record],
  image_format: str = 'png',
  quality: int = 95,
  keep_hash: bool = False,
) -> None:
  """Writes a shard of some records, in order: see `open_shard`."""
  with open_shard(path, image_format, quality, keep_hash) as append:
    for record in records:
      append(record)


class _Writer:
  """What is appended to a file that is open for writing.

  Attributes:
    places: of each record that is in the file, its end, label and number within its class.
    digest: the SHA-256 of what is in the file.
  """

  def __init__(self, file: BinaryIO, image_format: str, quality: int):
    self.places: list[tuple[int, int, int]] = []
    self.digest = hashlib.sha256()
    self._file, self._form = file, (image_format, quality)
    # records whose images are being encoded, in order
    self._pending: collections.deque[tuple[Record, Future[bytes]]] = collections.deque()
    self._pending_bytes = 0

  def append(self, record: Record) -> None:
    """Takes a record, which will stand behind those that were taken before."""
    self._pending.append((record, _encoders().submit(_encode, record, *self._form)))
    self._pending_bytes += record.image.nbytes
    while self._pending and (self._pending[0][1].done() or self._pending_bytes > _MAX_PENDING_BYTES):
      self._write_first()

  def write_all(self) -> None:
    """Writes all records that were taken."""
    while self._pending:
      self._write_first()

  def _write_first(self) -> None:
    record, encoded = self._pending.popleft()
    self._pending_bytes -= record.image.nbytes
    data = tfrecord.framed(encoded.result())
    self._file.write(data)
    self.digest.update(data)
    end = self.places[-1][0] if self.places else 0
    self.places.append((end + len(data), record.label, record.index))


@functools.cache
def _encoders() -> ThreadPoolExecutor:
  """Returns the threads that encode images, as many as there are cores: Pillow does it without the lock."""
  return ThreadPoolExecutor(os.cpu_count())


class ShardSource(Examples):
  """Random access to the images of shards, one shard after the other; each read checks the record's CRC.

  It takes 8 bytes of memory a record and keeps 64 files open at most, however many shards there are. Threads
  can read at the same time.

  Raises:
    InputError: a shard is missing, cut short or altered; the message names it and the record.
  """

  def __init__(self, paths: Sequence[epath.Path]):
    self._paths = list(paths)
    # where each record ends, shard by shard
    self._ends = [np.zeros(0, '<u8')] * len(self._paths)
    for shard, index in shard_index.load_indices(self._paths):
      # a copy, as a view would keep the other columns
      self._ends[shard] = index.ends.copy()
    # the number of the first record of each shard, and behind the last one of how many there are
    self._firsts = np.cumsum([0, *map(len, self._ends)])
    self._opened = _files()

  def __getstate__(self) -> dict[str, Any]:
    # a worker process opens its own files
    return {name: value for name, value in self.__dict__.items() if name != '_opened'}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state, _opened=_files())

  def __len__(self) -> int:
    return int(self._firsts[-1])

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns an image and what is known of it: the fields of `Record`, and `encoded`, the image's file."""
    return _example(*self._read(index))

  def undecoded(self, index: int) -> dict[str, Any]:
    features, where = self._read(index)
    return {'image': Picture(_encoded(features), _channels(features), where), **_fields(features)}

  def as_written(self, index: int) -> dict[str, Any]:
    """Returns what `__getitem__` does, but in the place of `image` its `channels`: nothing is decoded."""
    features, _ = self._read(index)
    return {'encoded': _encoded(features), 'channels': _channels(features), **_fields(features)}

  def fields(self, index: int) -> dict[str, Any]:
    """Returns what is known of an image, without decoding it: the `FIELDS` of its record."""
    return _fields(self._read(index)[0])

  def places(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the label of each image and its number within its class: int32 [N] each.

    No image is read for it, but the index of each shard.
    """
    labels, indices = np.empty(len(self), np.int32), np.empty(len(self), np.int32)
    for shard, index in shard_index.load_indices(self._paths):
      rows = slice(self._firsts[shard], self._firsts[shard + 1])
      labels[rows], indices[rows] = index.labels, index.indices
    return labels, indices

  def _read(self, index: int) -> tuple[tfrecord.Features, str]:
    """Returns the features of a record, and where it is, for messages."""
    if not 0 <= index < len(self):
      raise IndexError(index)
    shard = int(np.searchsorted(self._firsts, index, side='right')) - 1
    number, path, ends = index - int(self._firsts[shard]), self._paths[shard], self._ends[shard]
    start, end = int(ends[number - 1]) if number else 0, int(ends[number])
    # the record whole, in one answer of the disk
    try:
      record = self._opened(path).read(start, end - start)
    except FileNotFoundError:
      raise missing_shard(path) from None
    try:
      return tfrecord.features(record, path, number), _where(path, number)
    except InputError:
      # what is wrong is told by the shard alone, as its index may be that of another one
      for _ in tfrecord.records(path):
        pass
      raise InputError(
        f'{index_path(path)} is of another shard than the one there now; delete it and run again'
      ) from None


def read_shard(path: epath.Path) -> Iterator[dict[str, Any]]:
  """Yields what `ShardSource` returns of each image of a shard, in order; its index is not read or written.

  Raises:
    InputError: the shard is missing, cut short or altered; the message names it and the record.
  """
  try:
    for number, (_, features) in enumerate(tfrecord.records(path)):
      yield _example(features, _where(path, number))
  except FileNotFoundError:
    raise missing_shard(path) from None


def _files() -> Callable[[epath.Path], RandomAccess]:
  """Returns what opens files and keeps so many of them open.

  One that others take the place of is closed when the last thread that reads it lets it go.
  """
  return functools.lru_cache(_MAX_OPEN_FILES)(RandomAccess)


def _where(path: epath.Path, number: int) -> str:
  """Returns where a record is, for messages."""
  return f'{path}: record {number}'


def _example(features: tfrecord.Features, where: str) -> dict[str, Any]:
  """Returns an image and what is known of it, from the features of its record."""
  encoded = _encoded(features)
  return {'image': decode_image(encoded, _channels(features), where), 'encoded': encoded, **_fields(features)}


def _encoded(features: tfrecord.Features) -> bytes:
  return features['image/encoded'].bytes_list.value[0]


def _channels(features: tfrecord.Features) -> int:
  return features['image/channels'].int64_list.value[0]


def _fields(features: tfrecord.Features) -> dict[str, Any]:
  return {name: _value(features[field.feature], field.kind) for name, field in FIELDS.items()}


def _value(feature: Any, kind: str) -> Any:
  """Returns what a feature holds, of a `Field`'s kind."""
  if kind == 'int':
    return feature.int64_list.value[0]
  text = feature.bytes_list.value[0].decode()
  return json.loads(text) if kind == 'json' else text


def _encode(record: Record, image_format: str, quality: int) -> bytes:
  height, width, channels = record.image.shape
  encoded = record.encoded
  if encoded is None:
    file = io.BytesIO()
    options = {'quality': quality, 'subsampling': 0} if image_format == 'jpeg' else {}
    as_picture(record.image).save(file, image_format, **options)
    encoded = file.getvalue()
  numbers = {'image/height': height, 'image/width': width, 'image/channels': channels}
  texts = {'image/encoded': encoded, 'image/format': image_format.encode()}
  for name, field in FIELDS.items():
    value = getattr(record, name)
    if field.kind == 'int':
      numbers[field.feature] = value
    else:
      text = json.dumps(value, sort_keys=True) if field.kind == 'json' else value
      texts[field.feature] = text.encode()
  example = Example()
  for name, value in sorted(numbers.items()):
    example.features.feature[name].int64_list.value.append(value)
  for name, value in sorted(texts.items()):
    example.features.feature[name].bytes_list.value.append(value)
  return example.SerializeToString(deterministic=True)
