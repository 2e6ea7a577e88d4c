"""Generated images in TFRecord shards: a shard is written as a whole, and read in any order.

A TFRecord file is a sequence of [uint64 length, masked crc32c of it, bytes, masked crc32c of them];
the bytes are a serialized tf.train.Example.
"""

import hashlib
import io
import json
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import google_crc32c
import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_atomic
from imagenet_synth.data.decode import as_picture, decode_image
from imagenet_synth.data.source import Examples

_HEADER, _FOOTER = struct.Struct('<QI'), struct.Struct('<I')


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
  'label': Field('image/class/label', 'int'),
  'class_name': Field('image/class/text', 'text'),
  'wnid': Field('image/class/synset', 'text'),
  'index': Field('index', 'int'),
  'seed': Field('seed', 'int'),
  'prompt': Field('prompt', 'text'),
  'stages': Field('stages', 'json'),
}
"""What a record holds besides the image: a field of `Record` -> where it is."""


def shard_name(shard: int, num_shards: int) -> str:
  """Returns the file name of a shard, as TFDS has it; shards count from 0."""
  return f'train-{shard:05d}-of-{num_shards:05d}.tfrecord'


def write_shard(
  path: pathlib.Path,
  records: Iterable[Record],
  image_format: str = 'png',
  quality: int = 95,
  keep_hash: bool = False,
) -> None:
  """Writes a shard atomically; equal records give equal bytes.

  Args:
    path: the shard's file; its folder is made if it is not there.
    records: the images, in order.
    image_format: 'png' or 'jpeg'.
    quality: of JPEG, up to 100.
    keep_hash: write the shard's hash beside it as well, for `shard_hash`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  file = io.BytesIO()
  for record in records:
    data = _encode(record, image_format, quality)
    length = struct.pack('<Q', len(data))
    file.write(length + _FOOTER.pack(_masked_crc(length)) + data + _FOOTER.pack(_masked_crc(data)))
  write_atomic(path, file.getvalue())
  if keep_hash:
    _keep_hash(path, file.getvalue())


def hash_path(shard: pathlib.Path) -> pathlib.Path:
  """Returns where a shard's hash is kept, in the form that `sha256sum --check` reads."""
  return shard.with_name(f'{shard.name}.sha256')


def shard_hash(path: pathlib.Path) -> str:
  """Returns the SHA-256 that a shard had when it was written, as hex digits.

  Where it is not kept beside the shard, as after a kill between the two, it is computed and kept now.
  """
  if not hash_path(path).exists():
    _keep_hash(path, path.read_bytes())
  return hash_path(path).read_text().split()[0]


def _keep_hash(path: pathlib.Path, data: bytes) -> None:
  write_atomic(hash_path(path), f'{hashlib.sha256(data).hexdigest()}  {path.name}\n')


class ShardSource(Examples):
  """Random access to the images of shards, one shard after the other; each read checks the record's CRC.

  Raises:
    InputError: a shard is cut short or altered; the message names it and the record.
  """

  def __init__(self, paths: Sequence[pathlib.Path]):
    self._files = [(path, os.open(path, os.O_RDONLY)) for path in paths]
    self._places = [
      (path, fd, number, start, length)
      for path, fd in self._files
      for number, (start, length) in enumerate(_offsets(path, fd))
    ]

  def __del__(self) -> None:
    for _, fd in getattr(self, '_files', ()):
      os.close(fd)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns an image and what is known of it: the fields of `Record`, and `encoded`, the image's file."""
    features, where = self._read(index)
    encoded = features['image/encoded'].bytes_list.value[0]
    image = decode_image(encoded, features['image/channels'].int64_list.value[0], where)
    return {'image': image, 'encoded': encoded, **_fields(features)}

  def fields(self, index: int) -> dict[str, Any]:
    """Returns what is known of an image, without decoding it: the `FIELDS` of its record."""
    return _fields(self._read(index)[0])

  def _read(self, index: int) -> tuple[Mapping[str, feature_pb2.Feature], str]:
    """Returns the features of a record, and where it is, for messages."""
    path, fd, number, start, length = self._places[index]
    data = os.pread(fd, length + _FOOTER.size, start)
    if _FOOTER.unpack(data[length:])[0] != _masked_crc(data[:length]):
      raise _damaged(path, number, 'its bytes do not match their CRC')
    return example_pb2.Example.FromString(data[:length]).features.feature, f'{path}: record {number}'


def _fields(features: Mapping[str, feature_pb2.Feature]) -> dict[str, Any]:
  return {name: _value(features[field.feature], field.kind) for name, field in FIELDS.items()}


def _value(feature: feature_pb2.Feature, kind: str) -> Any:
  """Returns what a feature holds, of a `Field`'s kind."""
  if kind == 'int':
    return feature.int64_list.value[0]
  text = feature.bytes_list.value[0].decode()
  return json.loads(text) if kind == 'json' else text


def _offsets(path: pathlib.Path, fd: int) -> Iterator[tuple[int, int]]:
  """Yields where the bytes of each record start, and how many they are."""
  size, position, number = os.fstat(fd).st_size, 0, 0
  while position < size:
    header = os.pread(fd, _HEADER.size, position)
    if len(header) < _HEADER.size:
      raise _damaged(path, number, 'the file ends within it')
    length, crc = _HEADER.unpack(header)
    if crc != _masked_crc(header[:8]):
      raise _damaged(path, number, 'its length does not match its CRC')
    start = position + _HEADER.size
    position, number = start + length + _FOOTER.size, number + 1
    if position > size:
      raise _damaged(path, number - 1, 'the file ends within it')
    yield start, length


def _damaged(path: pathlib.Path, number: int, what: str) -> InputError:
  return InputError(f'{path}: record {number} is damaged ({what}); delete the shard and run generate again')


def _masked_crc(data: bytes) -> int:
  """Returns the CRC32C of some bytes as TFRecord files store it: rotated, a constant added."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


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
  example = example_pb2.Example()
  for name, value in sorted(numbers.items()):
    example.features.feature[name].int64_list.value.append(value)
  for name, value in sorted(texts.items()):
    example.features.feature[name].bytes_list.value.append(value)
  return example.SerializeToString(deterministic=True)
