"""Generated images as TFRecord shards, written whole and read at random.

A TFRecord file is a sequence of [uint64 length, masked crc32c of it, bytes, masked crc32c of them];
the bytes are a serialized tf.train.Example.
"""

import hashlib
import io
import json
import os
import pathlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from tensorflow.core.example import example_pb2

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_atomic
from imagenet_synth.data.decode import as_picture, decode_image

_HEADER, _FOOTER = struct.Struct('<QI'), struct.Struct('<I')


class Record(NamedTuple):
  """A generated image uint8 [H, W, C] and what it is of.

  class_name: as people call it. index: its number within the class. prompt: what the cascade was told.
  wnid: the WordNet id, '' if the class is not known by one. stages: settings and weights of each stage,
  as JSON holds them.
  """

  image: np.ndarray
  label: int
  class_name: str
  index: int
  seed: int
  prompt: str
  stages: Any
  wnid: str = ''


def shard_name(shard: int, num_shards: int) -> str:
  return f'train-{shard:05d}-of-{num_shards:05d}.tfrecord'


def write_shard(
  path: pathlib.Path, records: Iterable[Record], image_format: str = 'png', quality: int = 95
) -> str:
  """Writes a shard atomically; equal records give equal bytes. Returns their SHA-256."""
  path.parent.mkdir(parents=True, exist_ok=True)
  file = io.BytesIO()
  for record in records:
    data = _encode(record, image_format, quality)
    length = struct.pack('<Q', len(data))
    file.write(length + _FOOTER.pack(_masked_crc(length)) + data + _FOOTER.pack(_masked_crc(data)))
  write_atomic(path, file.getvalue())
  return hashlib.sha256(file.getvalue()).hexdigest()


class ShardSource:
  """Random access to the images of shards, one after the other; every read checks its CRC.

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

  def __del__(self):
    for _, fd in getattr(self, '_files', ()):
      os.close(fd)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """image uint8 [H, W, C], label int, index int (within the class), seed int, class_name, prompt and
    wnid str, stages: see `Record`; encoded: the image's file.
    """
    path, fd, number, start, length = self._places[index]
    data = os.pread(fd, length + _FOOTER.size, start)
    if _FOOTER.unpack(data[length:])[0] != _masked_crc(data[:length]):
      raise _damaged(path, number, 'its bytes do not match their CRC')
    features = example_pb2.Example.FromString(data[:length]).features.feature
    number_of = lambda name: features[name].int64_list.value[0]
    text_of = lambda name: features[name].bytes_list.value[0].decode()
    encoded = features['image/encoded'].bytes_list.value[0]
    return {
      'image': decode_image(encoded, number_of('image/channels'), f'{path}: record {number}'),
      'label': number_of('image/class/label'),
      'index': number_of('index'),
      'class_name': text_of('image/class/text'),
      'wnid': text_of('image/class/synset'),
      'seed': number_of('seed'),
      'prompt': text_of('prompt'),
      'stages': json.loads(text_of('stages')),
      'encoded': encoded,
    }


def _offsets(path: pathlib.Path, fd: int) -> Iterable[tuple[int, int]]:
  """Start and length of each record's bytes."""
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
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _encode(record: Record, image_format: str, quality: int) -> bytes:
  height, width, channels = record.image.shape
  file = io.BytesIO()
  options = {'quality': quality, 'subsampling': 0} if image_format == 'jpeg' else {}
  as_picture(record.image).save(file, image_format, **options)
  numbers = {
    'image/height': height,
    'image/width': width,
    'image/channels': channels,
    'image/class/label': record.label,
    'index': record.index,
    'seed': record.seed,
  }
  texts = {
    'image/encoded': file.getvalue(),
    'image/format': image_format.encode(),
    'image/class/text': record.class_name.encode(),
    'image/class/synset': record.wnid.encode(),
    'prompt': record.prompt.encode(),
    'stages': json.dumps(record.stages, sort_keys=True).encode(),
  }
  example = example_pb2.Example()
  for name, value in sorted(numbers.items()):
    example.features.feature[name].int64_list.value.append(value)
  for name, value in sorted(texts.items()):
    example.features.feature[name].bytes_list.value.append(value)
  return example.SerializeToString(deterministic=True)
