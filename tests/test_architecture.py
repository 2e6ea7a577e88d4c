"""Which file may import which: docs/architecture.md has the levels as a table."""

import ast
import graphlib
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parents[1] / 'imagenet_synth'
# lowest first; the folders and files of a level don't import each other
_LEVELS = (
  ('core',),
  ('data', 'diffusion', 'metrics', 'models'),
  ('cascade', 'weights'),
  ('inputs',),
  ('train',),
  ('evaluation', 'report'),
  ('jobs', 'status'),
  ('cost',),
  ('pipeline',),
  ('library', 'main'),
)
_LEVEL = {room: level for level, rooms in enumerate(_LEVELS) for room in rooms}
_MODULES = {
  '.'.join(path.relative_to(_PACKAGE.parent).with_suffix('').parts): path
  for path in sorted(_PACKAGE.rglob('*.py'))
  if path.name != '__init__.py'
}


def _imported(module):
  """Dotted names: of `from x import y` both x and x.y, as y can be a module."""
  for node in ast.walk(ast.parse(_MODULES[module].read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{module} imports by a relative name'
      yield from (node.module, *(f'{node.module}.{alias.name}' for alias in node.names))


_OWN = {module: sorted({name for name in _imported(module) if name in _MODULES}) for module in _MODULES}


@pytest.mark.parametrize('module', _MODULES)
def test_a_file_imports_from_its_own_folder_and_from_levels_below(module):
  room = module.split('.')[1]
  others = [name for name in _OWN[module] if name.split('.')[1] != room]
  assert not [name for name in others if _LEVEL[name.split('.')[1]] >= _LEVEL[room]]
  assert room != 'jobs' or others == _OWN[module], 'a job reads what another has left in its folder'


def test_no_import_goes_in_a_circle():
  """Else `prepare` raises CycleError, which names the files."""
  graphlib.TopologicalSorter(_OWN).prepare()


def test_only_data_and_the_metric_writers_know_tensorflow_and_clu():
  foreign = {'clu', 'tensorflow', 'tensorflow_datasets'}
  knowing = {m for m in _MODULES if foreign & {name.split('.')[0] for name in _imported(m)}}
  assert {m for m in knowing if m.split('.')[1] != 'data'} == {'imagenet_synth.train.metric_writers'}
