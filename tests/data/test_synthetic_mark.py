"""Files of images that say that they are synthetic, and are else as they were."""

import io
import struct
import xml.etree.ElementTree
import zlib

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.data.decode import as_picture
from imagenet_synth.data.synthetic_mark import SOURCE_TYPE, image_format, mark

_RDF = '{http://www.w3.org/1999/02/22-rdf-syntax-ns#}'
_IPTC = '{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}'


def _encoded(kind, channels):
  pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
  file = io.BytesIO()
  as_picture(pixels).save(file, kind)
  return file.getvalue()


def _parts(encoded):
  """The chunks of a PNG, or the segments of a JPEG before its image, as (name, content)."""
  if encoded.startswith(b'\xff\xd8'):
    place = 2
    while encoded[place + 1] != 0xDA:
      (length,) = struct.unpack_from('>H', encoded, place + 2)
      yield encoded[place : place + 2], encoded[place + 4 : place + 2 + length]
      place += 2 + length
    yield b'the rest', encoded[place:]
    return
  place = 8
  while place < len(encoded):
    length, name = struct.unpack_from('>I4s', encoded, place)
    content = encoded[place + 8 : place + 8 + length]
    (crc,) = struct.unpack_from('>I', encoded, place + 8 + length)
    assert crc == zlib.crc32(name + content)
    yield name, content
    place += 12 + length


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('kind', ['png', 'jpeg'])
def test_nothing_changes_but_that_the_file_says_what_it_is(kind, channels):
  before = _encoded(kind, channels)
  after = mark(before)
  assert image_format(before) == image_format(after) == kind
  (added,) = [part for part in _parts(after) if part not in list(_parts(before))]
  assert [part for part in _parts(after) if part != added] == list(_parts(before))
  with Image.open(io.BytesIO(before)) as one, Image.open(io.BytesIO(after)) as other:
    np.testing.assert_array_equal(np.array(one), np.array(other))
    packet = other.info['xmp' if kind == 'jpeg' else 'XML:com.adobe.xmp']
  packet = packet.decode() if isinstance(packet, bytes) else packet
  assert packet.startswith('<?xpacket begin="\ufeff"') and packet.endswith('<?xpacket end="r"?>')
  root = xml.etree.ElementTree.fromstring(packet)
  (description,) = root.iter(f'{_RDF}Description')
  assert description.findtext(f'{_IPTC}DigitalSourceType') == SOURCE_TYPE


def test_the_head_of_a_file_stays_its_head():
  """IHDR, and JFIF's APP0, must be what a file begins with; XMP comes before the image itself."""
  assert [name for name, _ in _parts(mark(_encoded('png', 3)))] == [b'IHDR', b'iTXt', b'IDAT', b'IEND']
  names = [name for name, _ in _parts(mark(_encoded('jpeg', 3)))]
  assert names[:2] == [b'\xff\xe0', b'\xff\xe1']


def test_a_jpeg_without_jfif():
  encoded = _encoded('jpeg', 3)
  (length,) = struct.unpack_from('>H', encoded, 4)
  bare = encoded[:2] + encoded[4 + length :]
  assert [name for name, _ in _parts(mark(bare))][0] == b'\xff\xe1'
  with Image.open(io.BytesIO(mark(bare))) as image:
    assert SOURCE_TYPE.encode() in image.info['xmp']
