"""Writers of a run's metrics: to `metrics.jsonl`, which the report reads, and to what the config names."""

import importlib
import importlib.util
import inspect
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from clu import metric_writers
from clu.metric_writers import MetricWriter
from etils import epath

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import Journal, absolute, is_remote, json_hash
from imagenet_synth.core.processes import is_first
from imagenet_synth.core.progress import say_once


class JsonLinesWriter(metric_writers.LoggingWriter):
  """A writer of scalars to `metrics.jsonl`, a line {"step": ..., name: value, ...} for each call.

  How fast that was goes to `times.jsonl`, as {"step": ..., "time": seconds since 1970, name: value, ...}:
  `metrics.jsonl` is the same for two runs that compute the same. A line of times with "start" says that a
  process has begun or gone on.

  Args:
    folder: where the file is; what it has is kept.
    start_step: the step that the run goes on from. It writes the steps after it again, so their lines are
      dropped.
  """

  def __init__(self, folder: epath.Path, start_step: int = 0):
    super().__init__()
    path = folder / 'metrics.jsonl'
    kept = [line for line in whole_lines(path) if json.loads(line)['step'] <= start_step]
    self._lines = Journal(path, kept)
    self._times = Journal(folder / 'times.jsonl', whole_lines(folder / 'times.jsonl'))
    self.write_speed(start_step, {'start': True})

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes a line."""
    values = {name: float(np.asarray(value)) for name, value in scalars.items()}
    self._lines.append(json.dumps({'step': int(step), **values}))

  def write_speed(self, step: int, speed: Mapping[str, float]) -> None:
    """Writes a line of times."""
    self._times.append(json.dumps({'step': int(step), 'time': time.time(), **speed}))

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes nothing: the file is for numbers."""

  def flush(self) -> None:
    """Returns when the lines survive a kill."""
    self._lines.flush()
    self._times.flush()

  def close(self) -> None:
    """Writes what is left; takes no more lines."""
    self._lines.close()
    self._times.close()


def whole_lines(path: epath.Path) -> list[str]:
  """Returns the lines of a file of metrics but one that a kill has cut off; none if there is no file."""
  return [line for line in (path.read_text().splitlines() if path.exists() else []) if line.endswith('}')]


WriterName = str
"""A name of `WRITERS`, or 'package.module:Name' of another: what makes it of a folder, given as text."""


class WandbWriter(metric_writers.LoggingWriter):
  """A writer of scalars and images to Weights & Biases, where each folder is a run.

  The environment says the rest, as `wandb` documents it: WANDB_PROJECT, WANDB_API_KEY, WANDB_MODE=offline. A
  folder's run goes on when the program does.

  Args:
    folder: the run's; the project's name is that of the package if the environment has none.
  """

  def __init__(self, folder: epath.Path):
    super().__init__()
    import wandb

    self._image = wandb.Image
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT', 'imagenet_synth'),
      name=f'{folder.parent.name}/{folder.name}',
      id=json_hash(str(absolute(folder))),
      resume='allow',
      reinit='create_new',
      dir=None if is_remote(folder) else str(folder),
      settings=wandb.Settings(silent=True),
    )
    # steps may come again when a run goes on: they are numbers like others
    self._run.define_metric('*', step_metric='step')

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Logs numbers."""
    self._run.log({'step': int(step), **{name: float(np.asarray(value)) for name, value in scalars.items()}})

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Logs images, uint8 [1, H, W, C] each."""
    self._run.log({'step': int(step), **{name: self._image(picture[0]) for name, picture in images.items()}})

  def flush(self) -> None:
    """Does nothing: what was logged is in a process of its own."""

  def close(self) -> None:
    """Ends the run; the other process sends, or, offline, writes what is left, maybe a little later."""
    self._run.finish()


def _tensorboard(folder: epath.Path) -> MetricWriter:
  """Returns clu's writer of events, which TensorFlow itself writes; it knows fewer kinds of buckets."""
  scheme = str(folder).partition('://')[0]
  if is_remote(folder) and scheme not in tf.io.gfile.get_registered_schemes():
    say_once(f'{folder}: no events for TensorBoard, as TensorFlow cannot write to {scheme}://')
    return metric_writers.MultiWriter([])
  return metric_writers.SummaryWriter(str(folder))


WRITERS: dict[WriterName, Callable[[epath.Path], MetricWriter]] = {
  'tensorboard': _tensorboard,
  'wandb': WandbWriter,
}
"""Functions that make clu's metric writers for a run's folder, by the name that a config has for it."""


def require_writers(names: Sequence[WriterName]) -> None:
  """Raises `Invalid` below 'writers' if one of them cannot be made on this machine."""
  for i, name in enumerate(names):
    if name == 'wandb' and importlib.util.find_spec('wandb') is None:
      raise Invalid(f'writers[{i}]', "is 'wandb', a package that is not installed; pip install wandb")
    if name not in WRITERS:
      try:
        _imported(name)
      except InputError as fault:
        raise Invalid(f'writers[{i}]', f'is {fault}') from None


def _imported(name: WriterName) -> Callable[[str], MetricWriter]:
  """Returns what 'package.module:Name' leads to.

  Raises:
    InputError: the name is none of that form, nothing can be imported by it, or it makes no metric writer of
      a folder. Of a function that cannot be known before it is called.
  """
  module, colon, attribute = name.partition(':')
  if not (module and colon and attribute):
    known = ', '.join(map(repr, WRITERS))
    raise InputError(f"{name!r}, must be one of {known}, or 'package.module:Class' of another")
  try:
    make = getattr(importlib.import_module(module), attribute)
  except Exception as error:
    # whatever the user's own code raises when it is imported
    message = ' '.join(str(error).split())
    raise InputError(f'{name!r}, which cannot be imported: {type(error).__name__}: {message}') from None
  if isinstance(make, type):
    if not issubclass(make, MetricWriter):
      raise InputError(f'{name!r}, which is no clu.metric_writers.MetricWriter')
    lacking = ', '.join(sorted(getattr(make, '__abstractmethods__', ())))
    if lacking:
      raise InputError(f'{name!r}, which lacks methods of a clu.metric_writers.MetricWriter: {lacking}')
  elif not callable(make):
    raise InputError(f'{name!r}, which is neither a class nor a function')
  try:
    inspect.signature(make).bind('folder')
  except (TypeError, ValueError):
    raise InputError(f"{name!r}, which must take one argument, the run's folder") from None
  return make


def _make(name: WriterName, folder: epath.Path) -> MetricWriter:
  """Returns a writer for a run's folder; raises InputError if a function makes something else."""
  if name in WRITERS:
    return WRITERS[name](folder)
  # as text, which clu's own writers take
  writer = _imported(name)(str(folder))
  if not isinstance(writer, MetricWriter):
    raise InputError(
      f'{name!r} has made a {type(writer).__name__}, which is no clu.metric_writers.MetricWriter'
    )
  return writer


class RunWriter(metric_writers.MultiWriter):
  """A writer of a run's metrics to all that they are to be written to.

  Args:
    lines: the writer of lines; None in a process that writes nothing.
    others: what the config names.
  """

  def __init__(self, lines: JsonLinesWriter | None, others: Sequence[MetricWriter]):
    super().__init__([*others, *([] if lines is None else [lines])])
    self._own, self._others = lines, others

  def write_speed(self, step: int, speed: Mapping[str, float]) -> None:
    """Writes how fast the steps until this one were."""
    for other in self._others:
      other.write_scalars(step, speed)
    if self._own is not None:
      self._own.write_speed(step, speed)


def make_writer(folder: epath.Path, start_step: int, names: Sequence[WriterName]) -> RunWriter:
  """Returns a writer of a run's metrics to `metrics.jsonl` in its folder, and to all that are named.

  Of processes that have joined each other, only the first one's writer writes anything.

  Args:
    folder: the run's.
    start_step: the step that the run goes on from, 0 for a new one.
    names: writers besides `metrics.jsonl`.

  Raises:
    InputError: a function that is named returns no metric writer.
  """
  if not is_first():
    return RunWriter(None, [])
  others = [_make(name, folder) for name in names]
  return RunWriter(JsonLinesWriter(folder, start_step), others)
