"""Which process is at which jobs of a workdir, so that no second one makes the same at the same time.

    WORKDIR/progress/HOST.PID.claim   the jobs that a process is going to make, written anew every few seconds

File systems' own locks are not on every shared disk, and not in object storage. A process that was killed
leaves its claim: on this machine it is looked for among the processes; one of another machine is taken for
dead if it has not written for a minute.
"""

import contextlib
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import make_folder, matching, read_json, unfinished_below, write_json
from imagenet_synth.core.progress import say

# seconds between two times that a claim is written, and after which one that was not is a dead process's
_BEAT, _DEAD_AFTER = 15, 60


@contextlib.contextmanager
def claimed(workdir: epath.Path, jobs: Sequence[str], worker: Worker) -> Iterator[None]:
  """A context in which this process alone makes some jobs, or is the only worker of its number that does.

  At its beginning, the first worker deletes what killed processes have left of files in the jobs' folders.

  Raises:
    InputError: another process is at one of the jobs, or is going to be.
  """
  if not jobs:
    yield
    return
  path = workdir / 'progress' / f'{socket.gethostname()}.{os.getpid()}.claim'
  claim = {
    'host': socket.gethostname(),
    'pid': os.getpid(),
    'began': time.time(),
    'machine': _machine(),
    'born': _born(os.getpid()),
    'worker': [worker.index, worker.count],
    'jobs': list(jobs),
  }
  _require_free(path, claim)
  ended = threading.Event()
  beats = threading.Thread(target=_write_often, args=(path, claim, ended), daemon=True)
  try:
    make_folder(path.parent)
    write_json(path, claim | {'beat': 0})
  except OSError as error:
    raise InputError(f'cannot write to workdir {workdir}: {error.strerror}') from None
  beats.start()
  try:
    # again: another may have looked and claimed meanwhile, and has seen nothing, or sees this one now
    _require_free(path, claim, is_claimed=True)
    if worker.index == 0:
      _delete_temporary(workdir, jobs)
    yield
  finally:
    ended.set()
    beats.join()
    path.unlink(missing_ok=True)


def _write_often(path: epath.Path, claim: dict[str, Any], ended: threading.Event) -> None:
  """Writes a claim anew until the event."""
  beat = 0
  while not ended.wait(_BEAT):
    beat += 1
    # one that cannot be written is not worth stopping for
    with contextlib.suppress(OSError):
      write_json(path, claim | {'beat': beat})


def _require_free(path: epath.Path, claim: dict[str, Any], is_claimed: bool = False) -> None:
  """Raises InputError if another process that is alive claims one of the same jobs, but as another worker.

  Args:
    path: where this process's claim is, or will be.
    claim: what it claims.
    is_claimed: whether it is there. Of two that see each other's, the one with the lesser name goes on.
  """
  for other_path in matching(path.parent, '*.claim'):
    # one of a dead process with the same number is written over
    if other_path == path or (is_claimed and path.name < other_path.name):
      continue
    other = _read(other_path)
    if other is None:
      continue
    common = [job for job in other['jobs'] if job in claim['jobs']]
    (index, count), (other_index, other_count) = claim['worker'], other['worker']
    if not common or (count == other_count and index != other_index):
      continue
    if not _is_alive(other_path, other):
      other_path.unlink(missing_ok=True)
      continue
    since = time.strftime('%Y-%m-%d %H:%M', time.localtime(other['began']))
    of_count = f' as worker {other_index} of {other_count}' if other_count > 1 else ''
    raise InputError(
      f'{path.parents[1]}: process {other["pid"]} on {other["host"]} makes {common[0]}{of_count}, '
      f'since {since}; wait for it or stop it; several processes share jobs by --worker INDEX/COUNT'
    )


def _read(path: epath.Path) -> dict[str, Any] | None:
  """Returns a claim; None if its process has just ended, or the file was damaged."""
  try:
    claim = read_json(path)
  except InputError:
    return None
  return claim if isinstance(claim, dict) and {'jobs', 'worker', 'machine'} <= claim.keys() else None


def _is_alive(path: epath.Path, claim: dict[str, Any]) -> bool:
  """Returns whether the process that has written a claim is there; of another machine's, after a while."""
  if claim['machine'] and claim['machine'] == _machine():
    return claim['born'] is not None and _born(claim['pid']) == claim['born']
  say(f'waiting up to {_DEAD_AFTER} s to see whether process {claim["pid"]} on {claim["host"]} still runs')
  # not by its time: clocks differ
  deadline = time.monotonic() + _DEAD_AFTER
  while time.monotonic() < deadline:
    time.sleep(1)
    now = _read(path)
    if now != claim:
      return now is not None
  return False


def _machine() -> str:
  """Returns what tells processes of this machine, or container, from others; empty if it is not known."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return ''


def _born(pid: int) -> int | None:
  """Returns when a process of this machine began, in ticks since the machine did; None if there is none."""
  try:
    # behind the name, which may hold blanks, come the state and numbers
    state, *numbers = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    # one that has ended may stay in the table until its parent asks
    return None if state in 'ZX' else int(numbers[18])
  except OSError:
    return None


def _delete_temporary(workdir: epath.Path, jobs: Sequence[str]) -> None:
  """Deletes temporary files in the folders of jobs, but those of processes that have a claim."""
  found = [path for job in jobs for path in unfinished_below(workdir / job)]
  # listed before: who has begun a file has claimed before that
  claims = tuple(f'.{path.stem}.tmp' for path in matching(workdir / 'progress', '*.claim'))
  for path in found:
    if not path.name.endswith(claims):
      path.unlink(missing_ok=True)
