"""What is written into the folder of a report."""

import re

from PIL import Image

from imagenet_synth.report.page import Picture, Section
from imagenet_synth.report.writing import write_page


def _picture(color, name='same'):
  return Picture(name, Image.new('RGB', (2, 3), color), color, color)


def test_the_page_in_both_forms_and_its_pictures(tmp_path):
  write_page(tmp_path, 'report', 'Title', [Section('S', [_picture('red', 'red')])])
  assert '![red](figures/red.png)' in (tmp_path / 'report.md').read_text()
  assert re.findall('src="(.{22})', (tmp_path / 'report.html').read_text()) == ['data:image/png;base64,']
  with Image.open(tmp_path / 'figures/red.png') as image:
    assert image.size == (2, 3) and image.getpixel((1, 1)) == (255, 0, 0)


def test_pictures_of_one_name_have_files_of_their_own(tmp_path):
  sections = [Section('S', [_picture('red'), _picture('blue')]), Section('T', [_picture('lime')])]
  write_page(tmp_path, 'report', 'Title', sections)
  names = re.findall(r'figures/(\w+).png', (tmp_path / 'report.md').read_text())
  assert names == ['same', 'same_2', 'same_3']
  for name, color in zip(names, ((255, 0, 0), (0, 0, 255), (0, 255, 0)), strict=True):
    with Image.open(tmp_path / f'figures/{name}.png') as image:
      assert image.getpixel((0, 0)) == color
