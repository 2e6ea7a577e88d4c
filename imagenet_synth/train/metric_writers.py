"""Writers of a run's metrics: to `metrics.jsonl`, which the report reads, and to what the config names."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from clu import metric_writers
from clu.metric_writers import MetricWriter

from imagenet_synth.core.processes import is_first


class JsonLinesWriter(metric_writers.LoggingWriter):
  """A writer of scalars to `metrics.jsonl`, a line {"step": ..., name: value, ...} for each call.

  When that was goes to `times.jsonl`, as {"step": ..., "time": seconds since 1970}: `metrics.jsonl` is the
  same for two runs that compute the same. A line of times with "start" says that a process has begun or gone
  on.

  Args:
    folder: where the file is; what it has is kept.
    start_step: the step that the run goes on from. It writes the steps after it again, so their lines are
      dropped.
  """

  def __init__(self, folder: pathlib.Path, start_step: int = 0):
    super().__init__()
    path = folder / 'metrics.jsonl'
    kept = [
      line
      for line in (path.read_text().splitlines() if path.exists() else [])
      if line.endswith('}') and json.loads(line)['step'] <= start_step
    ]
    path.write_text(''.join(line + '\n' for line in kept))
    self._file, self._times = open(path, 'a'), open(folder / 'times.jsonl', 'a')
    self._write_time(start_step, start=True)

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes a line."""
    values = {name: float(np.asarray(value)) for name, value in scalars.items()}
    self._file.write(json.dumps({'step': int(step), **values}) + '\n')
    self._write_time(step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes nothing: the file is for numbers."""

  def flush(self) -> None:
    """Hands the lines to the operating system."""
    self._file.flush()
    self._times.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
    self._times.close()

  def _write_time(self, step: int, **more: bool) -> None:
    self._times.write(json.dumps({'step': int(step), 'time': time.time(), **more}) + '\n')


WriterName = Literal['tensorboard']

WRITERS: dict[WriterName, Callable[[pathlib.Path], MetricWriter]] = {
  'tensorboard': lambda folder: metric_writers.SummaryWriter(str(folder))
}
"""Functions that make clu's metric writers for a run's folder, by the name that a config has for it."""


def make_writer(folder: pathlib.Path, start_step: int, names: Sequence[WriterName]) -> MetricWriter:
  """Returns a writer of a run's metrics to `metrics.jsonl` in its folder, and to the named `WRITERS`.

  Of processes that have joined each other, only the first one's writer writes anything.

  Args:
    folder: the run's.
    start_step: the step that the run goes on from, 0 for a new one.
    names: writers besides `metrics.jsonl`.
  """
  if not is_first():
    return metric_writers.MultiWriter([])
  others = [WRITERS[name](folder) for name in names]
  return metric_writers.MultiWriter([*others, JsonLinesWriter(folder, start_step)])
