"""Pixels of image files of any kind (grey, RGB, CMYK, with a palette, transparent), and back."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from imagenet_synth.core.errors import InputError


def decode_image(data: bytes, num_channels: int, name: str) -> np.ndarray:
  """Returns the pixels of an image file: uint8 [H, W, num_channels].

  Args:
    data: the bytes of the file. What is transparent is laid on white.
    num_channels: 1 (grey) or 3 (RGB).
    name: what messages call the file.

  Raises:
    InputError: not an image, or one that is cut off.
  """
  with _opened(data, name) as image:
    image.load()
    pixels = np.array(_opaque(image).convert('L' if num_channels == 1 else 'RGB'))
  return pixels[..., None] if num_channels == 1 else pixels


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
      yield image
  # what Pillow raises for what is no image, is cut off, or claims to be larger than memory
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
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
