"""The same blocks as Markdown and as HTML."""

import re

from PIL import Image

from imagenet_synth.report.page import Paragraph, Picture, Section, Table, to_html, write_page

_SECTIONS = [
  Section(
    'Results <all>',
    [
      Paragraph('5 < 6 & more'),
      Table(['a', 'b'], [['1', 'x|y'], ['2', '']], strong=[1], note='A note.'),
      Picture('red', Image.new('RGB', (2, 3), 'red'), 'All "red"'),
    ],
  )
]


def test_markdown_and_pictures(tmp_path):
  write_page(tmp_path, 'report', 'Title', _SECTIONS)
  assert (tmp_path / 'report.md').read_text() == (
    '# Title\n\n## Results <all>\n\n5 < 6 & more\n\n| a | b |\n| --- | --- |\n| 1 | x\\|y |\n'
    '| **2** |  |\n\n*A note.*\n\n![All "red"](figures/red.png)\n\n*All "red"*\n'
  )
  with Image.open(tmp_path / 'figures/red.png') as image:
    assert image.size == (2, 3) and image.getpixel((1, 1)) == (255, 0, 0)


def test_html_is_escaped_and_holds_its_pictures():
  page = to_html('Title', _SECTIONS)
  assert '<h2>Results &lt;all&gt;</h2>' in page and '<p>5 &lt; 6 &amp; more</p>' in page
  assert '<tr class=strong><td>2</td><td></td></tr>' in page
  assert 'All &quot;red&quot;' in page
  assert re.findall(r'src="(.{22})', page) == ['data:image/png;base64,']


def test_a_picture_s_alternative_text_is_what_it_says_if_it_says_more_than_the_caption(tmp_path):
  picture = Picture('red', Image.new('RGB', (2, 3)), 'A caption', 'Five < six')
  section = Section('Pictures', [picture])
  write_page(tmp_path, 'report', 'Title', [section])
  assert '![Five < six](figures/red.png)\n\n*A caption*' in (tmp_path / 'report.md').read_text()
  page = to_html('Title', [section])
  assert ' alt="Five &lt; six"><figcaption>A caption</figcaption>' in page
