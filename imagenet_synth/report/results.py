"""The finished jobs that the report is made from, and how their numbers are written."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from etils import epath

from imagenet_synth.core.config import Reference
from imagenet_synth.core.files import read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.report.drawing import MeanStd


@dataclasses.dataclass(frozen=True)
class FinishedJob:
  """A finished job, as its folder holds it."""

  name: str
  # such as 'generate'
  kind: str
  # its folder
  path: epath.Path
  # its section of the config
  config: dict[str, Any]
  # what it has found out, as job.json has it
  result: dict[str, Any]
  # what it was made from, as job.json has it
  origin: dict[str, Any]
  # how long it took, from the last time that it was started
  seconds: float
  # what has run it, as job.json has it; nothing where an earlier version of the program has
  run: Mapping[str, Any]

  @property
  def device(self) -> str:
    """Returns what has run it, such as '8 x TPU v4' or '2 CPU cores'; '' if that is not known."""
    if not self.run:
      return ''
    if self.run['device'] == 'cpu' and self.run['num_processes'] == 1:
      # its devices are virtual ones
      return f'{self.run["num_cores"]} CPU cores'
    return f'{self.run["num_devices"]} x {self.run["device"]}'


class FinishedJobReference(Reference):
  """A job of any kind, to be reported."""

  kinds: ClassVar[tuple[str, ...]] = ()

  def open(self, folder: JobFolder) -> FinishedJob:
    """Returns all that the job has left."""
    path, result = folder.input(self.name)
    record, config = read_json(path / 'job.json'), read_json(path / 'config.json')
    origin, seconds, run = record['origin'], record['seconds'], record.get('run', {})
    return FinishedJob(self.name, record['job'], path, config, result, origin, seconds, run)


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
  """What a report is made from; equal to itself alone, so that what is read of it can be kept by it."""

  # the jobs that are reported, in order
  jobs: Sequence[FinishedJob]
  # the report's own
  folder: JobFolder

  def of_kind(self, *kinds: str) -> list[FinishedJob]:
    """Returns the jobs of these kinds."""
    return [job for job in self.jobs if job.kind in kinds]


def is_finetuned(job: FinishedJob) -> bool:
  """Returns whether the base of a generate job was fine-tuned."""
  return job.result['stages'][0]['kind'] == 'finetune'


def percent(value: dict[str, Any]) -> MeanStd:
  """Returns a mean and its standard deviation, as job.json has them, in percent."""
  return 100 * value['mean'], None if value['std'] is None else 100 * value['std']


def spread(value: MeanStd) -> str:
  """Returns '98.83 ± 0.14', or the mean alone where there is no deviation."""
  mean, std = value
  return f'{mean:.2f}' if std is None else f'{mean:.2f} ± {std:.2f}'


def number(value: float) -> str:
  """Returns a number with three significant digits, or as a whole number from 100 on."""
  return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'


def duration(seconds: float) -> str:
  """Returns a time as '12 s', '3.2 min', '1.5 h' or '3.5 days'."""
  if seconds < 59.5:
    return f'{seconds:.0f} s'
  for size, unit, most in ((60, 'min', 60), (3600, 'h', 24)):
    if round(seconds / size, 1) < most:
      return f'{seconds / size:.1f} {unit}'
  return f'{seconds / 86_400:.1f} days'
