"""Reads a page of the report as strictly as a validator, and asserts what must hold for every page."""

import html.parser
import re

_ALONE = {'meta', 'link', 'img'}


class _Reader(html.parser.HTMLParser):
  """Reads a page strictly: each element is closed where it must be."""

  def __init__(self):
    super().__init__()
    self.open, self.seen = [], []

  def handle_starttag(self, tag, attrs):
    self.seen.append((tag, dict(attrs), tuple(self.open)))
    if tag not in _ALONE:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    assert 'svg' in self.open, f'<{tag}/> is no HTML'
    self.seen.append((tag, dict(attrs), tuple(self.open)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def read(page):
  """The elements of a page: (tag, attributes, tags that it is within); asserts that each is closed."""
  reader = _Reader()
  reader.feed(page)
  reader.close()
  assert not reader.open
  return reader.seen


def assert_readable(page):
  """Asserts what holds for every page, whatever is in it."""
  seen = read(page)
  ids = [attrs['id'] for _, attrs, _ in seen if 'id' in attrs]
  assert len(ids) == len(set(ids))
  for tag, attrs, within in seen:
    if tag == 'img' or (tag == 'svg' and 'svg' not in within):
      assert attrs.get('alt') or (attrs.get('role') == 'img' and attrs.get('aria-label'))
    if tag in ('img', 'script', 'iframe', 'source', 'link'):
      assert attrs.get('src', attrs.get('href')).startswith('data:')
    if tag == 'a' or 'aria-labelledby' in attrs:
      target = attrs.get('href', '#' + attrs.get('aria-labelledby', ''))
      assert target[0] == '#' and target[1:] in ids, target
    if tag == 'table':
      assert 'div' in within
    if tag == 'th':
      assert attrs['scope'] in ('row', 'col')
  tables = len(re.findall('<table', page))
  assert len(re.findall(r'<table[^>]*><caption>[^<]', page)) == tables == page.count('</caption>')
  assert len(re.findall(r'<div class="wide"[^>]*>\n<table', page)) == tables
  assert not re.search(r'@import|url\((?!#)', page) and '<script' not in page
