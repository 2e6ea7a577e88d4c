"""Metrics of a run, for TensorBoard and as JSON lines."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from clu import metric_writers

from imagenet_synth.core.processes import is_first


class JsonLinesWriter(metric_writers.LoggingWriter):
  """Scalars only: a line {"step": ..., name: value, ...} a call, in `metrics.jsonl`.

  A run that resumes from `start_step` writes the steps after it again, so lines past it are dropped.
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
    self._file = open(path, 'a')

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    values = {name: float(np.asarray(value)) for name, value in scalars.items()}
    self._file.write(json.dumps({'step': int(step), **values}) + '\n')

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    pass

  def flush(self) -> None:
    self._file.flush()

  def close(self) -> None:
    self._file.close()


def make_writer(folder: pathlib.Path, start_step: int = 0) -> metric_writers.MetricWriter:
  """TensorBoard event files and `metrics.jsonl` in `folder`, written by the first process."""
  if not is_first():
    return metric_writers.MultiWriter([])
  return metric_writers.MultiWriter(
    [metric_writers.SummaryWriter(str(folder)), JsonLinesWriter(folder, start_step)]
  )
