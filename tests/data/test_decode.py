"""Images as people have them: every mode comes out as the colours that a viewer shows."""

import io

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.decode import Box, Picture, as_picture, decode_image

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


def _photo(height=120, width=160):
  """A smooth image with some noise, in the colours of a photo."""
  rows, columns = np.mgrid[:height, :width]
  waves = np.sin(rows / 11)[..., None] + np.cos(columns / 17)[..., None] * [1, 0.5, -1]
  noise = np.random.default_rng(0).normal(0, 6, (height, width, 3))
  return Image.fromarray(np.clip(128 + 50 * waves + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize('options', [{}, dict(quality=50), dict(subsampling=0), dict(progressive=True)])
@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpegs_are_decoded_as_pillow_does(mode, options):
  data = _file(_photo().convert(mode), 'jpeg', **options)
  expected = Image.open(io.BytesIO(data))
  np.testing.assert_array_equal(decode_image(data, 3, 'x'), np.asarray(expected.convert('RGB')))
  np.testing.assert_array_equal(decode_image(data, 1, 'x')[..., 0], np.asarray(expected.convert('L')))


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
@pytest.mark.parametrize('channels', [1, 3])
def test_a_part_is_that_of_the_whole_image_resized(kind, channels):
  data = _file(_photo().convert('RGB' if channels == 3 else 'L'), kind)
  picture = Picture(data, channels, 'x')
  assert (picture.height, picture.width) == (120, 160)
  whole = as_picture(decode_image(data, channels, 'x'))
  for interpolation, resampling in (
    ('bilinear', Image.Resampling.BILINEAR),
    ('bicubic', Image.Resampling.BICUBIC),
  ):
    part = picture.part(Box(31, 7, 90, 70), 48, interpolation)
    expected = np.asarray(whole.resize((48, 48), resampling, box=(31, 7, 121, 77)))
    np.testing.assert_array_equal(part, expected.reshape(48, 48, channels))


def test_a_much_larger_part_is_reduced_while_it_is_decoded():
  data = _file(_photo(483, 641), 'jpeg', quality=95)
  box = Box(60, 41, 420, 400)
  for size, differs in ((200, True), (100, True), (48, True), (201, False)):
    part = Picture(data, 3, 'x').part(box, size, 'bilinear').astype(int)
    expected = Picture.of(decode_image(data, 3, 'x')).part(box, size, 'bilinear').astype(int)
    # the same place, and nearly the same filter
    assert np.abs(part - expected).mean() < 2.5
    assert (part != expected).any() == differs
    shifted = Picture.of(decode_image(data, 3, 'x')).part(Box(64, 45, 420, 400), size, 'bilinear')
    assert np.abs(part - expected).mean() < 0.7 * np.abs(part - shifted).mean() or not differs


def test_a_part_of_what_is_cut_off_is_refused():
  picture = Picture(_file(_photo(), 'jpeg')[:-700], 3, 'some/file.jpg')
  with pytest.raises(InputError, match='^some/file.jpg: cannot be decoded: .*truncated'):
    picture.part(Box(0, 0, 50, 50), 20, 'bilinear')


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
