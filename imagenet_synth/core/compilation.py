"""Compiled programs: they are kept on disk from run to run, and a line says what compiling took."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import jax
from etils import epath

from imagenet_synth.core.files import (
  as_path,
  is_remote,
  make_folder,
  matching,
  modified,
  size_of,
  users_cache,
)
from imagenet_synth.core.progress import say

# JAX sets no limit by itself, and with one it locks the folder for each program; the oldest programs go first
_MAX_BYTES = 20 * 2**30
# what is compiled in less time is not kept: most programs are of one operation. JAX's own limit is a second,
# within which a CPU compiles much of a small network
_MIN_SECONDS = 0.2


def keep_programs(folder: str | None) -> None:
  """Has compiled programs kept in a folder, where later runs find them.

  A folder that JAX was told of before, by the environment variable JAX_COMPILATION_CACHE_DIR, is left. One
  that cannot be used is told in a line, and costs no more than the time to compile.

  Args:
    folder: where, also in a bucket; None for `programs` in the user's cache, 'none' for nowhere.

  Raises:
    InputError: the folder is no path: see `as_path`.
  """
  if folder == 'none':
    jax.config.update('jax_enable_compilation_cache', False)
  given = jax.config.values
  if given['jax_compilation_cache_dir'] is None and given['jax_enable_compilation_cache']:
    path = epath.Path(users_cache() / 'programs') if folder is None else as_path(folder)
    if not is_remote(path) and not _is_usable(path):
      say(
        f'compiled programs are not kept: {path} cannot be written; --compilation_cache names another folder'
      )
      return
    jax.config.update('jax_compilation_cache_dir', str(path))
    if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
      jax.config.update('jax_persistent_cache_min_compile_time_secs', _MIN_SECONDS)
  # a program that cannot be read after a kill, or written to a full disk, is compiled as if there were none
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache')


def _is_usable(folder: epath.Path) -> bool:
  """Returns whether files can be written to a folder, which is made; old ones go where they are too many."""
  try:
    make_folder(folder)
    probe = folder / f'.{os.getpid()}'
    probe.write_bytes(b'.')
    probe.unlink()
    # another process that begins now may delete the same
    with contextlib.suppress(FileNotFoundError):
      _delete_oldest(folder)
  except OSError:
    return False
  return True


def _delete_oldest(folder: epath.Path, max_bytes: int = _MAX_BYTES) -> None:
  """Deletes the oldest programs of a folder, until the others take no more than `max_bytes`."""
  # not by epath's own `stat`, which asks for the name of the owner: in a container there may be none
  files = sorted((modified(path), size_of(path), path) for path in matching(folder, '*-cache'))
  excess = sum(size for _, size, _ in files) - max_bytes
  for _, size, path in files:
    if excess <= 0:
      return
    path.unlink(missing_ok=True)
    excess -= size


class _Compiled(NamedTuple):
  """What this process has compiled so far."""

  # how many programs
  programs: int = 0
  # how many of them were found in the cache
  cached: int = 0
  # the time it took, over all threads
  seconds: float = 0.0


_compiled = _Compiled()
# programs are compiled in several threads
_lock = threading.Lock()


def _count(programs: int = 0, cached: int = 0, seconds: float = 0.0) -> None:
  global _compiled
  with _lock:
    before = _compiled
    _compiled = _Compiled(before.programs + programs, before.cached + cached, before.seconds + seconds)


def _on_event(event: str, **kwargs: str | int) -> None:
  if event == '/jax/compilation_cache/cache_hits':
    _count(cached=1)


def _on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:
  # of a program that is found in the cache, too
  if event == '/jax/core/compile/backend_compile_duration':
    _count(programs=1, seconds=duration_secs)


jax.monitoring.register_event_listener(_on_event)
jax.monitoring.register_event_duration_secs_listener(_on_duration)


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
  """Says in a line what was compiled within, however it ends; nothing if nothing was."""
  before = _compiled
  try:
    yield
  finally:
    programs, cached, seconds = (now - then for now, then in zip(_compiled, before))
    if programs:
      say(f'{what}: {programs} programs compiled in {seconds:.1f} s, {cached} of them found in the cache')
