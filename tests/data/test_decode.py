"""Images as people have them: every mode comes out as the colours that a viewer shows."""

import io

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.decode import decode_image

_COLOUR = (200, 40, 90)


def _file(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _plain(mode='RGB'):
  return Image.new('RGB', (5, 3), _COLOUR).convert(mode)


def test_the_channels_asked_for():
  pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
  data = _file(Image.fromarray(pixels), 'png')
  np.testing.assert_array_equal(decode_image(data, 1, 'x'), pixels[..., None])
  np.testing.assert_array_equal(decode_image(data, 3, 'x'), np.repeat(pixels[..., None], 3, axis=-1))
  assert decode_image(_file(_plain(), 'png'), 1, 'x').shape == (3, 5, 1)


@pytest.mark.parametrize(
  'mode, kind, tolerance',
  [
    ('RGB', 'png', 0),
    ('P', 'png', 40),
    ('RGBA', 'png', 0),
    ('RGB', 'jpeg', 4),
    ('CMYK', 'jpeg', 6),
    ('RGB', 'webp', 12),
    ('RGB', 'bmp', 0),
    ('CMYK', 'tiff', 2),
  ],
)
def test_colours_are_kept(mode, kind, tolerance):
  pixels = decode_image(_file(_plain(mode), kind), 3, 'x')
  assert pixels.shape == (3, 5, 3) and pixels.dtype == np.uint8
  np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(_COLOUR, (3, 5, 3)), atol=tolerance)


def test_what_is_transparent_is_laid_on_white():
  image = Image.new('RGBA', (2, 1), (0, 0, 0, 0))
  image.putpixel((1, 0), (*_COLOUR, 255))
  expected = [[[255, 255, 255], _COLOUR]]
  np.testing.assert_array_equal(decode_image(_file(image, 'png'), 3, 'x'), expected)
  palette = image.convert('RGB').quantize(4)
  data = _file(palette, 'png', transparency=palette.getpixel((0, 0)))
  np.testing.assert_allclose(decode_image(data, 3, 'x'), expected, atol=2)


def test_16_bits_are_scaled():
  pixels = np.array([[0, 255, 256, 65535]], np.uint16)
  data = _file(Image.fromarray(pixels), 'png')
  np.testing.assert_array_equal(decode_image(data, 1, 'x')[..., 0], [[0, 0, 1, 255]])


@pytest.mark.parametrize(
  'data, reason',
  [
    (b'', 'not an image file'),
    (b'<html>404</html>', 'not an image file'),
    (_file(Image.effect_noise((64, 64), 50), 'jpeg')[:-700], 'truncated'),
    (_file(Image.effect_noise((64, 64), 50), 'png')[:-2000], 'truncated'),
  ],
)
def test_what_cannot_be_decoded_is_named(data, reason):
  with pytest.raises(InputError, match=f'^some/file.jpg: cannot be decoded: .*{reason}') as error:
    decode_image(data, 3, 'some/file.jpg')
  assert '\n' not in str(error.value)
