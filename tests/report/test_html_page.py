"""The page as HTML: valid, self-contained, readable by machines that read aloud."""

import re

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.report import figures
from imagenet_synth.report.html_page import to_html
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
from tests.report.html_reader import assert_readable, read

_SECTIONS = [
  Section(
    'Results <all>',
    [
      Lead('It helps: -1.5 points'),
      Paragraph('5 < 6 & more, 10 s of 20 %'),
      Heading('Numbers'),
      Points(['one', 'two']),
      Table(
        'Some "numbers"',
        ['a', 'b', 'c'],
        [['1', 'x|y', '-1.25 (-2 to +1)'], ['2', '', NO_RUN]],
        strong=[1],
        note='A note.',
        jobs=['job'],
      ),
      Picture('red', Image.new('RGB', (2, 3), 'red'), 'All "red"', 'Five < six', ['job']),
      Picture('gain', figures.scaling([(600, 80.0, 1.0)]), 'A gain', 'A point at 80'),
      Picture('again', figures.scaling([(600, 80.0, 1.0)]), 'A gain', 'A point at 80'),
      Gallery(
        'cranes',
        ['real', 'drawn'],
        [('crane', [Tiles([np.zeros((8, 8, 1), np.uint8)] * 2, '0.5'), Tiles([])])],
        'Two',
      ),
      Code('python <x>'),
    ],
  ),
  Section('Where', [Table('Jobs', ['Job'], [['job']], anchors=['job']), Code('{}', 'job: config')]),
]


def test_the_page_can_be_read_whatever_is_in_it():
  assert_readable(to_html('Title', _SECTIONS))


@pytest.mark.parametrize('blocks', [[], [Table('None', ['a', 'b'], [])]])
def test_a_page_with_next_to_nothing_can_be_read(blocks):
  assert_readable(to_html('Title', [Section('Empty', blocks)]))


def test_text_is_escaped_and_numbers_are_set_as_such():
  page = to_html('Title <1>', _SECTIONS)
  assert '<title>Title &lt;1&gt;</title>' in page and '>Results &lt;all&gt;</h2>' in page
  assert '<p>5 &lt; 6 &amp; more, 10\N{NO-BREAK SPACE}s of 20\N{NO-BREAK SPACE}%</p>' in page
  assert 'alt="Five &lt; six"' in page
  assert '<p class="lead">It helps: −1.5 points</p>' in page
  # a line may end before an interval
  assert '<td class="number">−1.25 <span>(−2 to +1)</span></td>' in page
  # what a machine reads stays as it is
  assert '<code>python &lt;x&gt;</code>' in page


def test_the_contents_lead_to_each_section():
  seen = read(to_html('Title', _SECTIONS))
  links = [attrs['href'] for tag, attrs, within in seen if tag == 'a' and 'nav' in within]
  assert links == ['#results-all', '#where']


def test_a_table_leads_to_its_jobs():
  page = to_html('Title', _SECTIONS)
  assert page.count('From <a href="#job-job">job</a>.') == 2 and '<tr id="job-job">' in page


def test_a_cell_without_a_run_is_seen_to_be_empty_and_one_where_nothing_belongs_is_not():
  page = to_html('Title', _SECTIONS)
  assert ('<tr class="strong"><th scope="row">2</th><td></td><td class="none">no run</td></tr>') in page


def test_both_schemes_have_all_colours_and_print_has_the_light_one():
  page = to_html('Title', [])
  assert page.count('--ink: ') == 2 and '@media screen and (prefers-color-scheme: dark)' in page
  used = set(re.findall(r'var\(--([a-z0-9-]+)\)', page))
  assert used <= set(re.findall(r'--([a-z0-9-]+):', page))


def test_small_images_keep_their_pixels():
  page = to_html('Title', _SECTIONS)
  (image,) = [of for tag, of, within in read(page) if tag == 'img' and 'td' in within]
  assert (image['alt'], image['width'], image['height']) == ('crane, real: 2 images', '108', '48')
  assert image['class'] == 'pixels'
