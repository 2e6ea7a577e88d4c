"""The documentation: links lead somewhere, each page can be reached, each file that is named is there.

The notebook was executed as it stands, and still can be.
"""

import ast
import builtins
import json
import os
import pathlib
import re

import pytest

import imagenet_synth

_ROOT = pathlib.Path(__file__).parent.parent
_NOTEBOOK = _ROOT / 'docs/own_classes.ipynb'
_PAGES = [_ROOT / 'README.md', _ROOT / 'CONTRIBUTING.md', *sorted((_ROOT / 'docs').glob('*.md')), _NOTEBOOK]
_LINK = re.compile(r'\]\(([^)\s]+)\)')


def _cells(kind):
  """The cells of the notebook that are of a kind."""
  return [cell for cell in json.loads(_NOTEBOOK.read_text())['cells'] if cell['cell_type'] == kind]


def _source(cell):
  return ''.join(cell['source'])


def _text(page):
  """What a reader of a page reads; of a notebook, what is between the code."""
  return page.read_text() if page != _NOTEBOOK else '\n\n'.join(map(_source, _cells('markdown')))


def _links(page):
  """The targets of a page's links that are not on the web: (path, anchor)."""
  for target in _LINK.findall(_text(page)):
    if not target.startswith(('http://', 'https://')):
      path, _, anchor = target.partition('#')
      yield (page.parent / path).resolve() if path else page, anchor


def _anchors(page):
  """The anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.+)$', _text(page), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', _PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
  for path, anchor in _links(page):
    assert path.exists(), path
    assert not anchor or anchor in _anchors(path), (path, anchor)


def test_every_page_and_picture_is_linked_to():
  linked = {path for page in _PAGES for path, _ in _links(page)}
  files = {path for path in (_ROOT / 'docs').iterdir() if path.suffix in ('.md', '.png', '.svg', '.ipynb')}
  assert files <= linked, files - linked


@pytest.mark.parametrize('page', _PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
  """Such as `configs/quickstart.py:tiny`, in text and in commands."""
  named = re.findall(
    r'\b(?:configs|launch|docs|tests|benchmarks)/[\w./]+\.(?:py|sh|md|yaml|sbatch|txt)', _text(page)
  )
  assert [name for name in named if not (_ROOT / name).exists()] == []


def test_readme_is_short():
  """What is told to everyone fits on two screens; the rest is in docs/."""
  assert len((_ROOT / 'README.md').read_text().splitlines()) <= 130


def test_the_notebook_has_been_executed_in_order_and_tells_nothing_of_the_machine():
  cells = _cells('code')
  assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell['outputs']]
  assert {output['output_type'] for output in outputs} <= {'stream', 'execute_result', 'display_data'}
  assert sum('image/png' in output.get('data', {}) for output in outputs) >= 3
  texts = ''.join(''.join(output.get('text', ())) for output in outputs)
  assert 'Traceback' not in texts and not re.search(r'/(home|tmp|root|Users|work)/', texts)


def test_the_notebook_uses_names_that_are_there():
  code = '\n'.join(_source(cell) for cell in _cells('code'))
  tree = ast.parse('\n'.join(line for line in code.splitlines() if not line.startswith(('!', '%'))))
  attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
  used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == 'synth'}
  assert used == set(imagenet_synth.__all__)
  # what is imported, assigned or built in
  known = {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, 'names', ())}
  known |= {
    node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
  }
  read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
  assert read <= known | set(dir(builtins))


@pytest.mark.slow
def test_the_notebook_can_be_executed(tmp_path, monkeypatch):
  import nbclient
  import nbformat

  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, (str(_ROOT), os.environ.get('PYTHONPATH')))))
  notebook = nbformat.read(_NOTEBOOK, 4)
  for cell in notebook.cells:
    cell['source'] = re.sub(r'^STEPS = \d+', 'STEPS = 16', cell['source'])
  resources = {'metadata': {'path': str(tmp_path)}}
  nbclient.NotebookClient(notebook, timeout=3600, kernel_name='python3', resources=resources).execute()
  assert (tmp_path / 'runs/photos/report/report.html').exists()
  answer = notebook.cells[-2]['outputs'][0]['data']['text/markdown']
  assert '%' in answer and 'points' in answer
