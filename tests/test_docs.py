"""The documentation: links lead somewhere, each page can be reached, each file that is named is there."""

import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_PAGES = [_ROOT / 'README.md', _ROOT / 'CONTRIBUTING.md', *sorted((_ROOT / 'docs').glob('*.md'))]
_LINK = re.compile(r'\]\(([^)\s]+)\)')


def _links(page):
  """The targets of a page's links that are not on the web: (path, anchor)."""
  for target in _LINK.findall(page.read_text()):
    if not target.startswith(('http://', 'https://')):
      path, _, anchor = target.partition('#')
      yield (page.parent / path).resolve() if path else page, anchor


def _anchors(page):
  """The anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', _PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
  for path, anchor in _links(page):
    assert path.exists(), path
    assert not anchor or anchor in _anchors(path), (path, anchor)


def test_every_page_and_picture_is_linked_to():
  linked = {path for page in _PAGES for path, _ in _links(page)}
  files = {path for path in (_ROOT / 'docs').iterdir() if path.suffix in ('.md', '.png')}
  assert files <= linked, files - linked


@pytest.mark.parametrize('page', _PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
  """Such as `configs/quickstart.py:tiny`, in text and in commands."""
  named = re.findall(
    r'\b(?:configs|launch|docs|tests|benchmarks)/[\w./]+\.(?:py|sh|md|yaml|sbatch|txt)', page.read_text()
  )
  assert [name for name in named if not (_ROOT / name).exists()] == []


def test_readme_is_short():
  """What is told to everyone fits on two screens; the rest is in docs/."""
  assert len((_ROOT / 'README.md').read_text().splitlines()) <= 130
