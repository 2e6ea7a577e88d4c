"""A job's folder: its configuration, its results, and where they came from.

    WORKDIR/NAME/config.json   what the job was asked to do, written before it starts
    WORKDIR/NAME/...           its work, from which it can go on
    WORKDIR/NAME/job.json      its result, origin and seconds; written last, when the job is finished

A job reads the folders of others by name, through `JobFolder.input`, which refuses unfinished ones and
records which version was read. So every result can be traced, and one that was made from something
that has changed since is noticed.
"""

import functools
import pathlib
import subprocess
import time
from typing import Any, NamedTuple

from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json, write_json

# of results: one that another version has written cannot be read, and is not made again by itself
_FORMAT = 2

# stands for a key that a config lacks, in messages too; None would equal a key that is None
_UNSET = 'unset'


class Input(NamedTuple):
  """A finished job as another one reads it."""

  # its folder
  path: pathlib.Path
  # the result that it has left in job.json
  result: dict[str, Any]


class JobFolder:
  """The folder of one job, which is made when the job is started."""

  # the folder of all jobs
  workdir: pathlib.Path
  # the job's name
  name: str
  # the job's section of the config, which says what it is asked to do
  config: dict[str, Any]
  # which part of the job this process does, if the job can be divided
  worker: Worker
  # the job's own folder, WORKDIR/NAME
  path: pathlib.Path

  def __init__(self, workdir: pathlib.Path, name: str, config: dict[str, Any], worker: Worker = Worker()):
    self.workdir, self.name, self.config, self.worker = workdir, name, config, worker
    self.path = workdir / name
    self._inputs: dict[str, str] = {}
    self._start = time.time()

  @property
  def done(self) -> bool:
    """Returns whether the job is finished."""
    return (self.path / 'job.json').exists()

  @property
  def started(self) -> bool:
    """Returns whether the job has been started."""
    return (self.path / 'config.json').exists()

  def check(self) -> None:
    """Raises InputError if the folder holds work of another configuration, or of inputs that have changed."""
    if self.started:
      self._check_config(read_json(self.path / 'config.json'))
    if self.done:
      made_by = self.record.get('format', 1)
      if made_by != _FORMAT:
        raise InputError(
          f'{self.path} was made by another version of the program (format {made_by}, here {_FORMAT}); '
          'use another workdir, or the version that made it'
        )
      for name, recorded in self.record['origin']['inputs'].items():
        if recorded != fingerprint(self.workdir / name):
          raise InputError(
            f'{self.path} was made from another {name} than the one there now; '
            f'delete {self.path} to make it again'
          )

  def start(self) -> None:
    """Makes the folder and writes the configuration into it, if that isn't done yet.

    Raises:
      InputError: the folder cannot be written to.
    """
    self._start = time.time()
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      if not self.started:
        write_json(self.path / 'config.json', self.config)
    except OSError as error:
      raise InputError(f'cannot write to workdir {self.workdir}: {error.strerror}') from None

  def _check_config(self, recorded: dict[str, Any]) -> None:
    """Raises InputError, with the first key that differs, unless `recorded` is this configuration."""
    if recorded == self.config:
      return
    old, new = _flatten(recorded), _flatten(self.config)
    key = min(k for k in old.keys() | new.keys() if old.get(k, _UNSET) != new.get(k, _UNSET))
    raise InputError(
      f'{self.path} holds work with {key} = {old.get(key, _UNSET)!r}, the config says '
      f'{new.get(key, _UNSET)!r}; use another workdir or delete {self.path}'
    )

  def input(self, name: str) -> Input:
    """Returns the folder and the result of a finished job that this one reads, and records its version.

    Raises:
      InputError: that job has not been run to its end.
    """
    path = self.workdir / name
    version = fingerprint(path)
    if version is None:
      raise InputError(f'{self.name} needs {name}, which has not been run to its end: no job.json in {path}')
    self._inputs[name] = version
    return Input(path, read_json(path / 'job.json')['result'])

  @property
  def origin(self) -> dict[str, Any]:
    """Returns where this job's work comes from: job, config_hash, versions of its inputs, code revision."""
    return {
      'job': self.name,
      'config_hash': json_hash(self.config),
      'inputs': dict(self._inputs),
      'revision': revision(),
    }

  @property
  def record(self) -> dict[str, Any]:
    """Returns what job.json holds: the kind of `job`, its `result`, its `origin`, and the `seconds` it took.

    Raises:
      InputError: the job is not finished.
    """
    return read_json(self.path / 'job.json')

  def finish(self, result: dict[str, Any]) -> None:
    """Writes job.json with the result, which must be JSON: the job is done."""
    write_json(
      self.path / 'job.json',
      {
        'format': _FORMAT,
        'job': self.config['job'],
        'result': result,
        'origin': self.origin,
        'seconds': round(time.time() - self._start, 1),
      },
    )


def fingerprint(path: pathlib.Path) -> str | None:
  """Returns a hash of a finished job's result and origin; None if the job in the folder is not finished.

  The time that it took and the revision of the code don't count.
  """
  if not (path / 'job.json').exists():
    return None
  record = read_json(path / 'job.json')
  origin = {k: v for k, v in record['origin'].items() if k != 'revision'}
  return json_hash([record['result'], origin])


@functools.cache
def revision() -> str:
  """Returns the git revision of the code, with '-dirty' if it was edited; 'unknown' outside a checkout."""
  root = pathlib.Path(__file__).parent
  try:
    run = subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*'],
      cwd=root,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return run.stdout.strip()


def _flatten(value: Any, prefix: str = '') -> dict[str, Any]:
  """Returns the values in nested dicts by their dotted keys; an empty dict is a value."""
  if not isinstance(value, dict) or not value:
    return {prefix: value}
  flat: dict[str, Any] = {}
  for key, child in value.items():
    flat |= _flatten(child, f'{prefix}.{key}' if prefix else key)
  return flat
