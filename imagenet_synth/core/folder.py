"""A job's folder: its configuration, its results, and where they came from.

    WORKDIR/NAME/config.json   what the job was asked to do, written before it starts
    WORKDIR/NAME/...           its work, resumable
    WORKDIR/NAME/job.json      written last: the job is finished. Result, origin, seconds

A job reads the folders of others by name, through `Folder.input`, which refuses unfinished ones and
records which version was read. So every result can be traced, and one that was made from something
that has changed since is noticed.
"""

import functools
import pathlib
import subprocess
import time
from typing import Any

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json, write_json
from imagenet_synth.core.worker import Worker

# what a message says of a key that a config lacks; None would equal a key that is None
_UNSET = 'unset'


class Folder:
  """The folder of one job. `path` exists; `config` is what the job was asked to do.

  worker: which part of the job this process does, if the job can be divided.
  """

  def __init__(self, workdir: pathlib.Path, name: str, config: dict[str, Any], worker: Worker = Worker()):
    self.workdir, self.name, self.config, self.worker = workdir, name, config, worker
    self.path = workdir / name
    self._inputs: dict[str, str] = {}
    self._start = time.time()

  @property
  def done(self) -> bool:
    return (self.path / 'job.json').exists()

  @property
  def started(self) -> bool:
    return (self.path / 'config.json').exists()

  def check(self) -> None:
    """Raises InputError if the folder holds work of another configuration or of changed inputs."""
    if self.started:
      self._check_config(read_json(self.path / 'config.json'))
    if self.done:
      for name, recorded in self.record['origin']['inputs'].items():
        if recorded != fingerprint(self.workdir / name):
          raise InputError(
            f'{self.path} was made from another {name} than the one there now; '
            f'delete {self.path} to make it again'
          )

  def start(self) -> None:
    """Claims the folder for this configuration."""
    self._start = time.time()
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      if not self.started:
        write_json(self.path / 'config.json', self.config)
    except OSError as error:
      raise InputError(f'cannot write to workdir {self.workdir}: {error.strerror}') from None

  def _check_config(self, recorded: dict[str, Any]) -> None:
    if recorded == self.config:
      return
    old, new = _flatten(recorded), _flatten(self.config)
    key = min(k for k in old.keys() | new.keys() if old.get(k, _UNSET) != new.get(k, _UNSET))
    raise InputError(
      f'{self.path} holds work with {key} = {old.get(key, _UNSET)!r}, the config says '
      f'{new.get(key, _UNSET)!r}; use another workdir or delete {self.path}'
    )

  def input(self, name: str) -> pathlib.Path:
    """The folder of a finished job that this one reads."""
    path = self.workdir / name
    if not (path / 'job.json').exists():
      raise InputError(f'{self.name} needs {name}, which has not been run to its end: no job.json in {path}')
    self._inputs[name] = fingerprint(path)
    return path

  @property
  def origin(self) -> dict[str, Any]:
    """Where what this job makes comes from: config hash, inputs, code revision."""
    return {
      'job': self.name,
      'config_hash': json_hash(self.config),
      'inputs': dict(self._inputs),
      'revision': revision(),
    }

  @property
  def record(self) -> dict[str, Any]:
    return read_json(self.path / 'job.json')

  def finish(self, result: dict[str, Any]) -> None:
    write_json(
      self.path / 'job.json',
      {
        'job': self.config['job'],
        'result': result,
        'origin': self.origin,
        'seconds': round(time.time() - self._start, 1),
      },
    )


def fingerprint(path: pathlib.Path) -> str | None:
  """Identifies a finished job's outcome; the time it took and the revision don't count."""
  if not (path / 'job.json').exists():
    return None
  record = read_json(path / 'job.json')
  origin = {k: v for k, v in record['origin'].items() if k != 'revision'}
  return json_hash([record['result'], origin])


@functools.cache
def revision() -> str:
  """The git revision of the code, with '-dirty' if it was edited; 'unknown' outside a checkout."""
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
  if isinstance(value, dict) and value:
    return {
      k: v
      for key, child in value.items()
      for k, v in _flatten(child, f'{prefix}.{key}' if prefix else key).items()
    }
  return {prefix: value}
