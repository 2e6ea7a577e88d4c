"""Programs that are kept: found by the next process, whatever has become of the folder."""

import os
import subprocess
import sys

import jax
from etils import epath

from imagenet_synth.core.compilation import _delete_oldest, keep_programs

# a process that compiles a program and prints what it says of it, and whether donated arrays are used up
_PROCESS = """
import sys, warnings
import jax, jax.numpy as jnp, numpy as np
warnings.simplefilter('error')
from imagenet_synth.core import compilation
compilation._MIN_SECONDS = 0.0
compilation.keep_programs(sys.argv[1] if len(sys.argv) > 1 else None)
with compilation.telling('test'):
  step = jax.jit(lambda x, y: (jnp.sin(x @ y), x.sum()), donate_argnums=0)
  x = jax.block_until_ready(jax.device_put(jnp.eye(8)))
  made, total = step(x, jnp.full((8, 8), 2.0))
assert x.is_deleted() and float(total) == 8 and np.all(np.abs(np.asarray(made) - 0.9093) < 1e-4)
print(jax.config.jax_compilation_cache_dir)
"""


def _run(*arguments, **environment):
  """Runs the process; returns what it says first, how many programs it has and has found, and the folder."""
  given = {key: value for key, value in os.environ.items() if 'CACHE' not in key} | environment
  ended = subprocess.run(
    [sys.executable, '-c', _PROCESS, *map(str, arguments)], env=given, capture_output=True, text=True
  )
  assert ended.returncode == 0, ended.stderr
  *before, line = ended.stderr.splitlines()
  words = line.split()
  assert words[:1] + words[2:5] == ['test:', 'programs', 'compiled', 'in'], ended.stderr
  return before, int(words[1]), int(words[7]), ended.stdout.strip()


def test_programs_are_found_by_the_next_process_and_damaged_ones_are_made_again(tmp_path):
  folder = tmp_path / 'cache' / 'programs'
  first, again = _run(folder), _run(folder)
  files = list(folder.glob('*-cache'))
  assert first[0] == again[0] == [] and first[3] == str(folder)
  assert first[1] == again[1] == again[2] >= len(files) > 0 and first[2] == 0
  for number, path in enumerate(files):
    data = path.read_bytes()
    path.write_bytes((data[: len(data) // 2], b'', data[:9] + b'\0\0\0\0' + data[13:])[number % 3])
  assert _run(folder)[0] == []


def test_the_environment_comes_first(tmp_path):
  assert _run(tmp_path / 'flag', JAX_COMPILATION_CACHE_DIR=str(tmp_path / 'jax'))[3] == str(tmp_path / 'jax')
  assert _run('none', XDG_CACHE_HOME=str(tmp_path / 'xdg'))[3] == 'None'
  assert [path.name for path in tmp_path.iterdir()] == ['jax']


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  before = jax.config.jax_compilation_cache_dir
  try:
    jax.config.update('jax_compilation_cache_dir', None)
    keep_programs(str(tmp_path / 'file' / 'programs'))
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
  assert capsys.readouterr().err == (
    f'compiled programs are not kept: {tmp_path}/file/programs cannot be written; --compilation_cache names '
    'another folder\n'
  )


def test_the_oldest_programs_go_first(tmp_path):
  for number in range(5):
    path = tmp_path / f'jit_{number}-cache'
    path.write_bytes(bytes(10))
    os.utime(path, (100 - number, 100 - number))
  (tmp_path / 'notes.txt').write_bytes(bytes(100))
  _delete_oldest(epath.Path(tmp_path), max_bytes=25)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['jit_0-cache', 'jit_1-cache', 'notes.txt']
