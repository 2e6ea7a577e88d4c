"""What the report is made from: finished jobs, and how their numbers are written."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.folder import Folder
from imagenet_synth.jobs.figures import MeanStd


@dataclasses.dataclass(frozen=True)
class Finished:
  """A finished job as its folder holds it."""

  name: str
  kind: str
  path: pathlib.Path
  config: dict[str, Any]
  result: dict[str, Any]
  origin: dict[str, Any]
  seconds: float


@dataclasses.dataclass(frozen=True)
class Work:
  """All jobs that are reported, in order, and the report's own folder."""

  jobs: Mapping[str, Finished]
  folder: Folder

  def of_kind(self, *kinds: str) -> list[Finished]:
    return [job for job in self.jobs.values() if job.kind in kinds]

  def job(self, name: str, user: str) -> Finished:
    if name not in self.jobs:
      raise InputError(f'config: {self.folder.name}.jobs lacks {name}, which {user} was made from')
    return self.jobs[name]

  def is_finetuned(self, samples: str, user: str) -> bool:
    """Whether the base of a generate job is one that was fine-tuned."""
    run = self.job(samples, user).result['stages'][0]['run']
    return self.job(run, samples).kind == 'finetune'


def percent(value: dict[str, Any]) -> MeanStd:
  """A mean and its deviation, as job.json has it."""
  return 100 * value['mean'], None if value['std'] is None else 100 * value['std']


def spread(value: MeanStd) -> str:
  mean, std = value
  return f'{mean:.2f}' if std is None else f'{mean:.2f} ± {std:.2f}'


def number(value: float) -> str:
  return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
