"""Pictures as PNG, as SVG in the page's colours, and galleries as one picture."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.report import colors, figures
from imagenet_synth.report.page import Gallery, Tiles
from imagenet_synth.report.pictures import drawn, strip, to_data_uri, to_png, to_svg


def _figure():
  return figures.scaling([(600, 80.0, 1.0), (1200, 82.0, 1.0)], real=(75.0, 0.5))


def test_bytes_are_the_same_each_time_and_the_uri_holds_them():
  first = to_png(_figure())
  assert to_png(_figure()) == first
  with Image.open(io.BytesIO(first)) as image:
    assert image.width == 1000
    uri = to_data_uri(image)
  prefix = 'data:image/png;base64,'
  assert uri.startswith(prefix)
  with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(prefix)))) as image:
    assert image.width == 1000


def test_a_figure_in_the_page_has_no_colour_of_its_own_and_no_ground():
  svg = to_svg('scaling', _figure())
  assert {'var(--real)', 'var(--both)', 'var(--ink)', 'var(--muted)', 'var(--grid)'} <= set(
    re.findall(r'var\(--[a-z0-9-]+\)', svg)
  )
  assert not re.findall('#[0-9a-f]{6}', svg)
  assert '<style' not in svg and 'http://www.w3.org/2000/svg' in svg
  # as XML, too, and of no fixed size
  root = ET.fromstring(svg)
  assert 'viewBox' in root.attrib and 'width' not in root.attrib and 'height' not in root.attrib


def test_ids_of_two_figures_differ_and_their_references_are_to_their_own():
  one, two = (to_svg(name, _figure()) for name in ('one', 'two'))
  assert to_svg('one', _figure()) == one
  ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (one, two)]
  assert not ids[0] & ids[1]
  for svg, own in zip((one, two), ids):
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', svg))
    assert used and used <= own


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_each_colour_can_be_told_from_the_ground(scheme):
  """By the contrast that WCAG 2.1 asks of text, 4.5, and of what is drawn, 3."""

  def luminance(color):
    channels = [int(getattr(color, scheme)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])

  ground = luminance(colors.PAPER)
  for name, color in colors.VARIABLES.items():
    light, dark = sorted((luminance(color), ground), reverse=True)
    wanted = {'ink': 4.5, 'muted': 4.5, 'link': 4.5, 'paper': 1, 'grid': 1, 'tint': 1}.get(name, 3)
    assert (light + 0.05) / (dark + 0.05) >= wanted, name


@pytest.mark.parametrize('channels', [1, 3])
def test_a_strip_has_its_images_side_by_side_and_nothing_between_them(channels):
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), np.uint8)
  pixels = np.asarray(strip(Tiles(list(images))))
  assert pixels.shape == (8, 28, 4)
  for i, image in enumerate(images):
    part = pixels[:, 10 * i : 10 * i + 8]
    np.testing.assert_array_equal(part[..., :3], np.broadcast_to(image, (8, 8, 3)))
    assert (part[..., 3] == 255).all()
  assert (pixels[:, 8:10, 3] == 0).all()


def test_a_gallery_as_one_picture_has_all_pixels_and_its_names():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 200, (4, 32, 32, 3), np.uint8)
  rows = [
    ('one', [Tiles(list(images[:2]), '0.5'), Tiles([])]),
    ('two', [Tiles([images[2]]), Tiles([images[3]])]),
  ]
  pixels = np.asarray(drawn(Gallery('g', ['left', 'right'], rows, 'Some.')))
  # twice as large, wherever it is
  for image in images:
    large = image.repeat(2, 0).repeat(2, 1)
    places = np.argwhere((pixels[:-63, :-63] == large[0, 0]).all(-1))
    assert any((pixels[y : y + 64, x : x + 64] == large).all() for y, x in places)
  assert (pixels[:24] < 128).any(), 'the names of the columns are missing'
