"""Pixels of image files of any kind (grey, RGB, CMYK, with a palette, transparent), and back."""

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from imagenet_synth.core.errors import InputError

Interpolation = Literal['bilinear', 'bicubic']
"""How pixels are brought to another size, with antialiasing where they become fewer."""

_RESAMPLING = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
MAX_PIXELS = 100_000_000
"""Images that have more are not decoded: they would take 300 MB each, in many threads at a time."""

# checked here: Pillow would warn of images that are smaller, and refuse those of twice as many alone
Image.MAX_IMAGE_PIXELS = None
# by which libjpeg reduces an image while it decodes it, in a fraction of the time
_REDUCTIONS = (8, 4, 2)


class Box(NamedTuple):
  """A part of an image, in pixels."""

  left: int
  top: int
  width: int
  height: int


def decode_image(data: bytes, num_channels: int, name: str) -> np.ndarray:
  """Returns the pixels of an image file: uint8 [H, W, num_channels].

  Args:
    data: the bytes of the file. What is transparent is laid on white.
    num_channels: 1 (grey) or 3 (RGB).
    name: what messages call the file.

  Raises:
    InputError: not an image, or one that is cut off.
  """
  if _jpeg_size(data, num_channels) is not None:
    # the same pixels as Pillow's, a third faster; what it does not like, Pillow judges
    with contextlib.suppress(ValueError):
      return simplejpeg.decode_jpeg(data, 'GRAY' if num_channels == 1 else 'RGB')
  with _opened(data, name) as image:
    image.load()
    pixels = np.array(_opaque(image).convert('L' if num_channels == 1 else 'RGB'))
  return pixels[..., None] if num_channels == 1 else pixels


def centre(height: int, width: int) -> Box:
  """Returns the square in the middle of an image of a size."""
  side = min(height, width)
  return Box((width - side) // 2, (height - side) // 2, side, side)


class Picture:
  """An image file of which a part is wanted; a JPEG is decoded when it is known which.

  Args:
    data: the bytes of the file.
    num_channels: 1 (grey) or 3 (RGB).
    name: what messages call the file.

  Attributes:
    height: in pixels.
    width: in pixels.

  Raises:
    InputError: not an image, or one that is cut off; of a JPEG, `part` may raise it.
  """

  def __init__(self, data: bytes, num_channels: int, name: str):
    self._data, self._num_channels, self._name = data, num_channels, name
    self._pixels: np.ndarray | None = None
    size = _jpeg_size(data, num_channels)
    if size is None:
      self._pixels = decode_image(data, num_channels, name)
      size = self._pixels.shape[:2]
    self.height, self.width = size

  @classmethod
  def of(cls, pixels: np.ndarray) -> 'Picture':
    """Returns the picture of pixels uint8 [H, W, C] that no file is of."""
    picture = cls.__new__(cls)
    picture._pixels, (picture.height, picture.width, picture._num_channels) = pixels, pixels.shape
    return picture

  def pixels(self) -> np.ndarray:
    """Returns all pixels: uint8 [H, W, C]."""
    if self._pixels is None:
      self._pixels = decode_image(self._data, self._num_channels, self._name)
    return self._pixels

  def part(self, box: Box, size: int, interpolation: Interpolation) -> np.ndarray:
    """Returns a part of the image, brought to another size: uint8 [size, size, C].

    A part of at least twice as many pixels in both directions is reduced by 2, 4 or 8 as a JPEG is decoded.
    """
    reduction = next((by for by in _REDUCTIONS if min(box.width, box.height) >= by * size), 1)
    picture = self._reduced(reduction) if self._pixels is None else None
    if picture is None:
      picture, reduction = as_picture(self.pixels()), 1
    right, bottom = box.left + box.width, box.top + box.height
    scaled = (box.left / reduction, box.top / reduction, right / reduction, bottom / reduction)
    part = picture.resize((size, size), _RESAMPLING[interpolation], box=scaled)
    mode = 'L' if self._num_channels == 1 else 'RGB'
    return np.frombuffer(part.tobytes('raw', mode), np.uint8).reshape(size, size, self._num_channels)

  def _reduced(self, reduction: int) -> Image.Image | None:
    """Returns the JPEG with so many times fewer pixels in each direction; None if it cannot be decoded so.

    It is there until the thread decodes the next one.
    """
    form, num_bytes = ('GRAY', 1) if self._num_channels == 1 else ('RGBX', 4)
    height, width = -(-self.height // reduction), -(-self.width // reduction)
    buffer = _scratch(num_bytes * height * width)
    try:
      pixels = simplejpeg.decode_jpeg(self._data, form, min_height=height, min_width=width, buffer=buffer)
    except ValueError:
      return None
    # Pillow keeps four bytes a pixel of three channels, too, and takes them as they are
    mode = 'L' if self._num_channels == 1 else form
    return Image.frombuffer(mode, (width, height), pixels, 'raw', mode, 0, 1)


_thread = threading.local()


def _scratch(num_bytes: int) -> bytearray:
  """Returns memory of so many bytes or more, the thread's own: new memory is a quarter of decoding's time."""
  if len(getattr(_thread, 'scratch', b'')) < num_bytes:
    _thread.scratch = bytearray(num_bytes)
  return _thread.scratch


def _jpeg_size(data: bytes, num_channels: int) -> tuple[int, int] | None:
  """Returns height and width of a JPEG whose channels are those wanted, or grey; None of all other files."""
  if not data.startswith(b'\xff\xd8'):
    return None
  try:
    height, width, form, _ = simplejpeg.decode_jpeg_header(data)
  except ValueError:
    return None
  has_channels = form == 'Gray' or (num_channels == 3 and form in ('YCbCr', 'RGB'))
  # what is too large is left to the other way, which refuses it
  return (height, width) if has_channels and height * width <= MAX_PIXELS else None


def shorter_side(data: bytes, name: str) -> int:
  """Returns the shorter side of an image file in pixels; only its header is read.

  Args:
    data: the bytes of the file.
    name: what messages call the file.

  Raises:
    InputError: not an image.
  """
  with _opened(data, name) as image:
    return min(image.size)


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
  """Opens an image file; raises InputError if it cannot be, or what is done with it fails."""
  try:
    with Image.open(io.BytesIO(data)) as image:
      if image.width * image.height > MAX_PIXELS:
        raise ValueError(f'{image.width}x{image.height}, more than {MAX_PIXELS // 10**6} megapixels')
      yield image
  # what Pillow raises for what is no image, or is cut off
  except (OSError, SyntaxError, ValueError) as error:
    raise InputError(f'{name}: cannot be decoded: {_reason(error)}') from error


def as_picture(pixels: np.ndarray) -> Image.Image:
  """Returns pixels uint8 [H, W, C], with 1 (grey) or 3 (RGB) channels, as an image of Pillow."""
  return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _opaque(image: Image.Image) -> Image.Image:
  """Returns an image of 8 bits a channel, on white where it is transparent."""
  if image.mode.startswith('I;16'):
    # `convert` would clip 16 bits at 255
    return Image.fromarray((np.array(image) >> 8).astype(np.uint8))
  if not image.has_transparency_data:
    return image
  image = image.convert('RGBA')
  white = Image.new('RGBA', image.size, 'white')
  return Image.alpha_composite(white, image)


def _reason(error: Exception) -> str:
  return 'not an image file' if isinstance(error, UnidentifiedImageError) else str(error)
