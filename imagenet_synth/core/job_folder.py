"""A job's folder: its configuration, its results, and where they came from.

    WORKDIR/NAME/config.json   what the job was asked to do, written before it starts
    WORKDIR/NAME/inputs.json   which versions of data and of other jobs it has read
    WORKDIR/NAME/...           its work, from which it can go on
    WORKDIR/NAME/SHA256SUMS    what all its files were when it was finished
    WORKDIR/NAME/job.json      its result, origin, seconds, and what ran it; written last, when it is finished

A job reads the folders of others by name, through `JobFolder.input`, which refuses unfinished ones and
records which version was read. So every result can be traced, and one that was made from something
that has changed since is noticed.
"""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from imagenet_synth.core import checksums
from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import (
  delete_tree,
  json_hash,
  json_text,
  make_folder,
  matching,
  read_json,
  write_atomic,
  write_json,
)
from imagenet_synth.core.processes import is_first

# of results: one that another version has written cannot be read, and is not made again by itself
_FORMAT = 3

# what only a finished job's folder holds
_AT_END = ('job.json', checksums.SUMS)

# what a folder holds before its job has done anything
_BEFORE_WORK = ('config.json', 'inputs.json')

# stands for a key that a config lacks, in messages too; None would equal a key that is None
_UNSET = 'unset'

_PACKAGE = pathlib.Path(__file__).parents[1]


class Input(NamedTuple):
  """A finished job as another one reads it."""

  # its folder
  path: epath.Path
  # the result that it has left in job.json
  result: dict[str, Any]


class JobFolder:
  """The folder of one job, which is made when the job is started."""

  # the folder of all jobs
  workdir: epath.Path
  # the job's name
  name: str
  # the job's section of the config, which says what it is asked to do
  config: dict[str, Any]
  # which part of the job this process does, if the job can be divided
  worker: Worker
  # the job's own folder, WORKDIR/NAME
  path: epath.Path
  # keys of the section that may change while its work is kept: more of the same is wanted
  grows: Sequence[str]
  # dotted keys of the section that may change at any time, as what comes of the job does not depend on them
  execution: Collection[str]
  # folders within it that have too many files to list them in SHA256SUMS; a job may add some
  unlisted: set[epath.Path]

  def __init__(
    self,
    workdir: epath.Path,
    name: str,
    config: dict[str, Any],
    worker: Worker = Worker(),
    grows: Sequence[str] = (),
    execution: Collection[str] = (),
  ):
    self.workdir, self.name, self.config, self.worker, self.grows = workdir, name, config, worker, grows
    self.execution = execution
    self.path, self.unlisted = workdir / name, set()
    self._inputs: dict[str, str] = {}
    self._data: dict[str, str] = {}
    self._start, self._has_other_classes = time.time(), False

  @property
  def done(self) -> bool:
    """Returns whether the job is finished, and no more is wanted of it now than was then."""
    return (self.path / 'job.json').exists() and not self._more_is_wanted()

  @property
  def started(self) -> bool:
    """Returns whether the job has left work: its folder holds more than what is written before it begins."""
    return any(path.name not in _BEFORE_WORK for path in matching(self.path, '*'))

  def check(self, to_come: Collection[str] = ()) -> None:
    """Raises InputError if the folder holds work of another configuration, or of inputs that have changed.

    Inputs `to_come`, which are made again, as after a repair, are not looked at: they may be the same then.
    """
    if not self.started:
      return
    for key, (old, new) in self._changed_keys().items():
      if key.split('.')[0] not in self.grows:
        raise InputError(
          f'{self.path} holds work with {key} = {old!r}, the config says {new!r}; use another workdir, or '
          f'--redo {self.name} makes it anew'
        )
    if self.done:
      made_by = self.record.get('format', 1)
      if made_by != _FORMAT:
        raise InputError(
          f'{self.path} was made by another version of the program (format {made_by}, here {_FORMAT}); '
          'use another workdir, or the version that made it'
        )
      for name, recorded in self.record['origin']['inputs'].items():
        if name not in to_come and recorded != fingerprint(self.workdir / name):
          raise InputError(
            f'{self.path} was made from another {name} than the one there now; '
            f'--redo {self.name} makes it anew'
          )

  def check_data(self, versions: Mapping[str, str | None]) -> None:
    """Raises InputError if the work is of other data than is there now.

    Args:
      versions: of all data that the config names now, by what it is called; None where it is not known. What
        was recorded by another name was moved, and must be there in another place.
    """
    # a report also reads data that the jobs name which it is about
    there = {*versions.values()} or {None}
    for what, recorded in self._read_inputs()['data'].items():
      now = {versions[what]} if what in versions else there
      if not self.started or not now.isdisjoint({None, recorded}):
        continue
      if self.grows and what.startswith('classes of '):
        self._has_other_classes = True
      else:
        raise InputError(
          f'{self.path} was made from other {what} than are there now; --redo {self.name} makes it anew'
        )

  def start(self) -> None:
    """Makes the folder and writes the configuration into it.

    Raises:
      InputError: the folder cannot be written to.
    """
    self._start = time.time()
    try:
      make_folder(self.path)
      is_claimed = self.started and (self.path / 'config.json').exists()
      if not is_claimed or self._more_is_wanted():
        # what an earlier configuration has read, before there was work or when less was wanted
        for name in ('inputs.json', *_AT_END):
          (self.path / name).unlink(missing_ok=True)
        write_json(self.path / 'config.json', self.config)
      elif self.execution and is_first() and read_json(self.path / 'config.json') != self.config:
        # as it goes on: data may be in another place now
        write_json(self.path / 'config.json', self.config)
    except OSError as error:
      raise InputError(f'cannot write to workdir {self.workdir}: {error.strerror}') from None

  def clear(self) -> None:
    """Deletes the work, so that the job is made anew; of a job that grows, what may be used again is kept."""
    if not self.grows:
      delete_tree(self.path)
    for name in (*_AT_END, *_BEFORE_WORK):
      (self.path / name).unlink(missing_ok=True)

  def _more_is_wanted(self) -> bool:
    """Returns whether a job that grows has less than it is asked for now, or other classes."""
    return bool(self._changed_keys()) or self._has_other_classes

  def _changed_keys(self) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted key: (value in the folder, value now)} of what differs, by name."""
    path = self.path / 'config.json'
    if not path.exists():
      return {}
    old, new = (_flatten(_without(config, self.execution)) for config in (read_json(path), self.config))
    pairs = {key: (old.get(key, _UNSET), new.get(key, _UNSET)) for key in sorted(old.keys() | new.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

  def input(self, name: str) -> Input:
    """Returns the folder and the result of a finished job that this one reads, and records its version.

    Raises:
      InputError: that job has not been run to its end, or is another one than when this one was begun.
    """
    path = self.workdir / name
    version = fingerprint(path)
    if version is None:
      raise InputError(f'{self.name} needs {name}, which has not been run to its end: no job.json in {path}')
    self._remember('inputs', name, version)
    self._inputs[name] = version
    return Input(path, _read_record(path)['result'])

  def record_data(self, what: str, version: str) -> None:
    """Records the version of data that the job reads, such as 'images of folder data/mine train'.

    Raises:
      InputError: it is another one than when the job was begun.
    """
    self._remember('data', what, version)
    self._data[what] = version

  def _remember(self, kind: str, what: str, version: str) -> None:
    """Writes down what the job reads, so that a change is noticed before it is done."""
    recorded = self._read_inputs()
    if recorded[kind].get(what) == version or not self.path.is_dir():
      return
    if what in recorded[kind] and self.started:
      raise InputError(
        f'{self.path} was begun with another {what} than the one there now; --redo {self.name} makes it anew'
      )
    recorded[kind][what] = version
    # processes that have joined each other read the same
    if is_first():
      write_json(self.path / 'inputs.json', recorded)

  def _read_inputs(self) -> dict[str, dict[str, str]]:
    path = self.path / 'inputs.json'
    return read_json(path) if path.exists() else {'inputs': {}, 'data': {}}

  @property
  def origin(self) -> dict[str, Any]:
    """Returns where this job's work comes from: versions of its config, inputs and data, code revision."""
    return {
      'job': self.name,
      'config_hash': json_hash(_without(self.config, self.execution)),
      'inputs': dict(self._inputs),
      'data': dict(self._data),
      'revision': revision(),
    }

  @property
  def record(self) -> dict[str, Any]:
    """Returns what job.json holds: the kind of `job`, its `result`, its `origin`, the `seconds`, the `run`.

    Raises:
      InputError: the job is not finished.
    """
    return _read_record(self.path)

  def finish(self, result: dict[str, Any]) -> None:
    """Writes SHA256SUMS, and at last job.json with the result, which must be JSON: the job is done."""
    record = {
      'format': _FORMAT,
      'job': self.config['job'],
      'result': result,
      'origin': self.origin,
      'seconds': round(time.time() - self._start, 1),
      'run': how_run(),
    }
    text = json_text(record)
    checksums.write_sums(self.path, {'job.json': hashlib.sha256(text.encode()).hexdigest()}, self.unlisted)
    write_atomic(self.path / 'job.json', text)


def fingerprint(path: epath.Path) -> str | None:
  """Returns a hash of a finished job's result and origin; None if the job in the folder is not finished.

  The time that it took, what ran it, and the revision of the code don't count.
  """
  if not (path / 'job.json').exists():
    return None
  record = _read_record(path)
  origin = {k: v for k, v in record['origin'].items() if k != 'revision'}
  return json_hash([record['result'], origin])


def _read_record(path: epath.Path) -> dict[str, Any]:
  """Returns what the job.json in a folder holds; raises InputError if it is not what `finish` writes."""
  record = read_json(path / 'job.json')
  if not isinstance(record, dict) or not {'result', 'origin', 'seconds'} <= record.keys():
    raise InputError(f'{path / "job.json"} is not what a job leaves at its end; delete it and run again')
  return record


@functools.cache
def revision() -> str:
  """Returns the git revision of the code, with '-dirty' if it was edited; of a wheel 'version ...'.

  An image has no git: there, the environment variable IMAGENET_SYNTH_REVISION says what it was built from. If
  it does not either, this is 'unknown'.
  """
  if given := os.environ.get('IMAGENET_SYNTH_REVISION'):
    return given
  if (_PACKAGE / 'bundled').is_dir():
    # only wheels have it. Git would name the user's own repository, if the environment lies in one
    return f'version {importlib.metadata.version("imagenet_synth")}'
  try:
    run = subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*'],
      cwd=_PACKAGE,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return run.stdout.strip()


def how_run() -> dict[str, Any]:
  """Returns what runs this process: its command, the devices of it and those it has joined, JAX's version.

  The command is None where the program is used as a library.
  """
  program, *arguments = sys.argv
  is_program = epath.Path(program).name in ('main.py', 'imagenet_synth')
  device = jax.devices()[0]
  return {
    'command': shlex.join(['python', '-m', 'imagenet_synth.main', *arguments]) if is_program else None,
    'device': device.device_kind,
    'num_devices': jax.device_count(),
    'num_processes': jax.process_count(),
    'num_cores': os.cpu_count(),
    'jax': jax.__version__,
  }


def _without(value: Any, keys: Collection[str], where: str = '') -> Any:
  """Returns a section without what it has at some dotted keys."""
  if isinstance(value, dict):
    below = {key: f'{where}.{key}' if where else key for key in value}
    return {key: _without(of, keys, below[key]) for key, of in value.items() if below[key] not in keys}
  if isinstance(value, list):
    return [_without(of, keys, f'{where}[{i}]') for i, of in enumerate(value)]
  return value


def _flatten(value: Any, prefix: str = '') -> dict[str, Any]:
  """Returns the values in nested dicts and lists of dicts by their dotted keys; what is empty is a value."""
  if isinstance(value, dict) and value:
    children = {f'{prefix}.{key}' if prefix else key: child for key, child in value.items()}
  elif isinstance(value, list) and value and isinstance(value[0], dict):
    children = {f'{prefix}[{i}]': child for i, child in enumerate(value)}
  else:
    return {prefix: value}
  flat: dict[str, Any] = {}
  for key, child in children.items():
    flat |= _flatten(child, key)
  return flat
