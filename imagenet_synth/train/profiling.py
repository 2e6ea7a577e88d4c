"""A trace of some steps of training, which xprof and TensorBoard show: what each device did when."""

import contextlib
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import make_folder, write_atomic
from imagenet_synth.core.processes import is_first
from imagenet_synth.core.progress import say

# the steps that are traced, from 1; none
_steps = range(0)


def parse_steps(text: str) -> range:
  """Returns the steps that are written as FIRST:LAST, both included; raises InputError if they are none."""
  match = re.fullmatch(r'(\d+):(\d+)', text)
  if match is None or not 1 <= int(match[1]) <= int(match[2]):
    raise InputError(f'--profile is {text!r}, must be STEP:STEP, such as 100:110; steps count from 1')
  return range(int(match[1]), int(match[2]) + 1)


@contextlib.contextmanager
def profiling(steps: range) -> Iterator[None]:
  """Lets all training within trace these steps; see `Tracer`."""
  global _steps
  before, _steps = _steps, steps
  try:
    yield
  finally:
    _steps = before


class Tracer:
  """Writes what the devices of the first process do in the steps that `profiling` names.

  Args:
    folder: the run's; the trace goes to `plugins/profile` in it, where xprof looks for it.
    what: names the run in the line that says where the trace is.
  """

  def __init__(self, folder: epath.Path, what: str):
    self._folder, self._what = folder, what
    self._steps = _steps if is_first() else range(0)
    # where the trace is written, while there is one
    self._local: tempfile.TemporaryDirectory[str] | None = None

  def before(self, step: int, results: Any) -> None:
    """Begins the trace if it begins with `step`, when the steps before, of these results, are done."""
    if step in self._steps and self._local is None:
      jax.block_until_ready(results)
      self._local = tempfile.TemporaryDirectory()
      jax.profiler.start_trace(self._local.name)

  def after(self, step: int, results: Any) -> None:
    """Ends the trace, when the results of `step` are there, if it is the last one that is traced."""
    if self._steps and step == self._steps[-1]:
      jax.block_until_ready(results)
      self.end()

  def end(self) -> None:
    """Writes the trace of the steps that were done, if there are any."""
    if self._local is None:
      return
    with self._local as local:
      self._local = None
      jax.profiler.stop_trace()
      # also to a bucket
      for path in sorted(of for of in pathlib.Path(local).rglob('*') if of.is_file()):
        target = self._folder / path.relative_to(local).as_posix()
        make_folder(target.parent)
        write_atomic(target, path.read_bytes())
    say(f'{self._what}: a trace is written; pip install xprof && xprof --logdir {self._folder}')
