"""The same blocks as Markdown."""

import numpy as np
from PIL import Image

from imagenet_synth.report.markdown_page import to_markdown
from imagenet_synth.report.page import (
  NO_RUN,
  Code,
  Gallery,
  Heading,
  Lead,
  Paragraph,
  Picture,
  Points,
  Section,
  Table,
  Tiles,
)


def _markdown(*blocks):
  text = to_markdown('T', [Section('S', blocks)])
  assert text.startswith('# T\n\n## S\n\n')
  return text.removeprefix('# T\n\n## S\n\n')


def test_texts():
  text = _markdown(Lead('It helps.'), Heading('More'), Paragraph('5 < 6'), Points(['one', 'two']))
  assert text == '**It helps.**\n\n### More\n\n5 < 6\n\n- one\n- two\n'


def test_a_table_with_its_caption_note_and_jobs():
  table = Table('Some', ['a', 'b'], [['1', 'x|y'], ['2', ''], ['3', NO_RUN]], [1], 'A note.', ['job'])
  assert _markdown(table) == (
    '**Some**\n\n| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| **2** |  |\n| 3 | *no run* |\n\n'
    '*A note. From job.*\n'
  )


def test_pictures_are_files_beside_it():
  picture = Picture('red', Image.new('RGB', (2, 3)), 'All "red"', 'Five < six', ['a', 'b'])
  gallery = Gallery('cranes', ['real'], [('crane', [Tiles([np.zeros((8, 8, 1), np.uint8)])])], 'One')
  assert _markdown(picture, gallery) == (
    '![Five < six](figures/red.png)\n\n*All "red" From a, b.*\n\n'
    '![Rows: crane. Columns: real.](figures/cranes.png)\n\n*One*\n'
  )


def test_code_is_fenced_and_folded_under_its_summary():
  assert _markdown(Code('a\nb')) == '```\na\nb\n```\n'
  assert _markdown(Code('{}', 'more')) == ('<details><summary>more</summary>\n\n```\n{}\n```\n\n</details>\n')
