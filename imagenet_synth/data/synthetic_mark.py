"""The statement, within an image's file, that the image is synthetic: as XMP, where readers of IPTC look.

The property is DigitalSourceType of the IPTC Photo Metadata Standard, the value its code for what a model has
made. XMP is a packet of XML: in PNG an iTXt chunk, in JPEG an APP1 segment (part 3 of the XMP specification).
Only that is added; what is there of the image stays as it is, byte by byte.
"""

import struct
import zlib

SOURCE_TYPE = 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia'
"""IPTC's code for media that a model made which was trained on other media."""

_XMP = (
  '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
  '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
  '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
  '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
  f'<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>'
  '</rdf:Description></rdf:RDF></x:xmpmeta>'
  '<?xpacket end="r"?>'
).encode()

_PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8'
# the signature, and IHDR: its length, name, 13 bytes and checksum
_PNG_HEAD = len(_PNG) + 4 + 4 + 13 + 4
# keyword, not compressed (two zeros), no language and no translation of the keyword (each ends with a zero)
_ITXT = b'iTXtXML:com.adobe.xmp\0\0\0\0\0' + _XMP
_PNG_CHUNK = struct.pack('>I', len(_ITXT) - 4) + _ITXT + struct.pack('>I', zlib.crc32(_ITXT))
_APP1 = b'http://ns.adobe.com/xap/1.0/\0' + _XMP
_JPEG_SEGMENT = b'\xff\xe1' + struct.pack('>H', 2 + len(_APP1)) + _APP1


def image_format(encoded: bytes) -> str:
  """Returns what an image's file is: 'png' or 'jpeg'; the images of a generate job are one of the two."""
  return 'png' if encoded.startswith(_PNG) else 'jpeg'


def mark(encoded: bytes) -> bytes:
  """Returns an image's file, PNG or JPEG, with the statement that the image is synthetic.

  Args:
    encoded: a file as Pillow writes it, without XMP.
  """
  if image_format(encoded) == 'png':
    return encoded[:_PNG_HEAD] + _PNG_CHUNK + encoded[_PNG_HEAD:]
  end = len(_JPEG)
  # behind JFIF's APP0, which must come first
  if encoded[end : end + 2] == b'\xff\xe0':
    end += 2 + int.from_bytes(encoded[end + 2 : end + 4])
  return encoded[:end] + _JPEG_SEGMENT + encoded[end:]
