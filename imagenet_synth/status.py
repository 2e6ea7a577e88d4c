"""How far the jobs of a workdir are: what `imagenet_synth status WORKDIR` prints.

It needs no config: a run leaves the order of its jobs, and each process how far it is, in WORKDIR/progress.
"""

import contextlib
import datetime
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import make_folder, matching, modified, read_json, write_json

# a process that has kept no state for so many seconds is taken for dead: on slow machines, a step or a
# compilation may take a minute
_DEAD_AFTER = 180


def write_order(workdir: epath.Path, kinds: Mapping[str, str]) -> None:
  """Writes down the jobs of a run, in order: their kinds by name. Those of earlier runs stay before them."""
  path = workdir / 'progress' / 'order.json'
  before = read_json(path) if path.exists() else {}
  # what cannot be written here, the first job cannot write either, and says so
  with contextlib.suppress(OSError):
    make_folder(path.parent)
    write_json(path, {**{name: kind for name, kind in before.items() if name not in kinds}, **kinds})


def state_path(workdir: epath.Path, job: str, worker: Worker) -> epath.Path:
  """Returns where a process keeps how far it is with its part of a job."""
  return workdir / 'progress' / f'{job}-{worker.index}.json'


def describe(workdir: epath.Path) -> str:
  """Returns a text: a line for each job and for each process that is at it, the newest samples, what to do.

  Raises:
    InputError: nothing was ever run in this folder.
  """
  path = workdir / 'progress' / 'order.json'
  if not path.exists():
    raise InputError(f'status: {workdir} is no workdir: nothing has been run in it')
  kinds, now = read_json(path), time.time()
  width, kind_width = max(map(len, kinds)), max(map(len, kinds.values()))
  lines, num_done, is_running = [], 0, False
  for name, kind in kinds.items():
    finished = workdir / name / 'job.json'
    states = [] if finished.exists() else _states(workdir, name)
    alive = [state for state in states if now - state['time'] < _DEAD_AFTER]
    is_running |= bool(alive)
    num_done += finished.exists()
    if finished.exists():
      text = f'done in {_duration(read_json(finished)["seconds"])}'
    else:
      text = 'running' if alive else 'begun' if states or (workdir / name).exists() else 'left'
    lines.append(f'{name:{width}}  {kind:{kind_width}}  {text}')
    lines += [f'{"":{width}}  {_line(state, now)}' for state in states]
  lines.append(f'{num_done} of {len(kinds)} jobs done, in {workdir}')
  grids = sorted(matching(workdir, '*/samples/*.png'), key=modified)
  if grids:
    lines.append(f'newest samples: {grids[-1]}')
  reports = matching(workdir, '*/report.html')
  if num_done == len(kinds):
    lines += [f'report: {report}' for report in reports]
  elif not is_running:
    lines.append('nothing is running; the command that was run goes on from what is saved')
  return '\n'.join(lines)


def _states(workdir: epath.Path, name: str) -> list[dict[str, Any]]:
  """Returns how far the processes are, or were when they ended, with a job."""
  paths = matching(workdir / 'progress', f'{name}-*.json')
  # another job's name may begin like this one's
  mine = [path for path in paths if path.stem.removeprefix(f'{name}-').isdigit()]
  return [read_json(path) for path in mine]


def _line(state: Mapping[str, Any], now: float) -> str:
  """Returns how far a process is, and how long it will take."""
  done, total, rate, age = state['done'], state['total'], state['rate'], now - state['time']
  text = f'{state["what"]}: {done:,} of {total:,} {state["unit"]}'
  if age >= _DEAD_AFTER:
    return f'{text}, stopped {_duration(age)} ago'
  return f'{text}, {rate:,.1f} {state["unit"]}/s, {_duration((total - done) / rate)} left' if rate else text


def _duration(seconds: float) -> str:
  """Returns a time such as '12 s', '3:20 minutes' or '1 day, 2:03:00 hours'."""
  whole = round(seconds)
  if whole < 60:
    return f'{whole} s'
  if whole < 3600:
    return f'{whole // 60}:{whole % 60:02} minutes'
  return f'{datetime.timedelta(seconds=whole)} hours'
