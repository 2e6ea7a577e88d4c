"""The form of TFRecord files: records that follow each other, each with two checksums.

A record is [uint64 length, masked CRC32C of it, bytes, masked CRC32C of them]; the bytes are a serialized
tf.train.Example.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
from etils import epath
from google.protobuf.message import DecodeError

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.example_form import Example

_LENGTH, _CRC = struct.Struct('<Q'), struct.Struct('<I')
_HEADER_SIZE, _FOOTER_SIZE = _LENGTH.size + _CRC.size, _CRC.size

Features = Mapping[str, Any]
"""What a record holds, by name: each a `Feature` of a tf.train.Example."""


def framed(data: bytes) -> bytes:
  """Returns a record as the file has it, given its bytes."""
  length = _LENGTH.pack(len(data))
  return b''.join((length, _masked_crc(length), data, _masked_crc(data)))


def features(record: bytes, path: epath.Path, number: int) -> Features:
  """Returns the features of a record as the file has it.

  Args:
    record: all that the file has of it.
    path: the file, for messages.
    number: of the record, for messages.

  Raises:
    InputError: it is cut off or altered, or no tf.train.Example.
  """
  if len(record) < _HEADER_SIZE:
    raise damaged(path, number, 'the file ends within it')
  length = _data_length(record[:_HEADER_SIZE], path, number)
  data, footer = record[_HEADER_SIZE : _HEADER_SIZE + length], record[_HEADER_SIZE + length :]
  if len(footer) != _FOOTER_SIZE:
    raise damaged(path, number, 'the file ends within it')
  if footer != _masked_crc(data):
    raise damaged(path, number, 'its bytes do not match their CRC')
  try:
    return Example.FromString(data).features.feature
  except DecodeError:
    raise InputError(f'{path}: record {number} is no tf.train.Example') from None


def records(path: epath.Path) -> Iterator[tuple[int, Features]]:
  """Yields where each record of a file ends, in bytes, and its features; one is in memory at a time.

  Raises:
    InputError: a record is cut off or altered, or no tf.train.Example.
  """
  with path.open('rb') as file:
    end, number = 0, 0
    while header := file.read(_HEADER_SIZE):
      if len(header) < _HEADER_SIZE:
        raise damaged(path, number, 'the file ends within it')
      record = header + file.read(_data_length(header, path, number) + _FOOTER_SIZE)
      end += len(record)
      yield end, features(record, path, number)
      number += 1


def damaged(path: epath.Path, number: int, what: str) -> InputError:
  """Returns what is raised for a record that is not as it was written."""
  return InputError(f'{path}: record {number} is damaged ({what}); delete the shard and run generate again')


def _data_length(header: bytes, path: epath.Path, number: int) -> int:
  """Returns how many bytes a record has, given what stands before them."""
  if header[_LENGTH.size :] != _masked_crc(header[: _LENGTH.size]):
    raise damaged(path, number, 'its length does not match its CRC')
  return _LENGTH.unpack_from(header)[0]


def _masked_crc(data: bytes) -> bytes:
  """Returns the CRC32C of some bytes as TFRecord files store it: rotated, a constant added."""
  crc = google_crc32c.value(data)
  return _CRC.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
