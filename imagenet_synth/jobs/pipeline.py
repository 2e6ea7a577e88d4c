"""pipeline: jobs in order. What is finished is skipped; the same command again goes on.

A config is either one job (`job`, `name` and its settings) or a pipeline: `jobs`, a section for each
by name, and `order`, their names. Both run here: one job is a pipeline of one.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.processes import is_first, wait_for_all
from imagenet_synth.core.progress import say
from imagenet_synth.core.worker import Worker
from imagenet_synth.jobs import (
  classify,
  embed,
  evaluate,
  export,
  generate,
  import_weights,
  memory,
  report,
  select,
  sweep,
  train_stage,
  verify,
)

JOBS: dict[str, tuple[type, Callable[[Any, Folder], dict[str, Any]]]] = {
  'embed': (embed.Config, embed.run),
  'import_weights': (import_weights.Config, import_weights.run),
  'pretrain': (train_stage.PretrainConfig, train_stage.run),
  'finetune': (train_stage.FinetuneConfig, train_stage.run),
  'select': (select.Config, select.run),
  'sweep': (sweep.Config, sweep.run),
  'generate': (generate.Config, generate.run),
  'export': (export.Config, export.run),
  'evaluate': (evaluate.Config, evaluate.run),
  'classify': (classify.Config, classify.run),
  'report': (report.Config, report.run),
}

DIVISIBLE = ('generate', 'sweep', 'classify')
"""Kinds of jobs that several workers can share."""


@dataclasses.dataclass(frozen=True)
class Planned:
  """A job whose configuration has been checked."""

  config: Any
  run: Callable[[Any, Folder], dict[str, Any]]
  folder: Folder

  @property
  def status(self) -> str:
    if self.folder.done:
      return f'done in {self.folder.record["seconds"]:.0f} s'
    return 'begun' if self.folder.started else 'left'


def plan(config: Mapping[str, Any], workdir: pathlib.Path, worker: Worker = Worker()) -> list[Planned]:
  """Checks the whole configuration, before anything runs, and the folders that are there."""
  if 'job' in config:
    if 'name' not in config:
      raise InputError('config: missing key name (of the folder in workdir)')
    sections = {config['name']: {k: v for k, v in config.items() if k != 'name'}}
  else:
    sections = _ordered(config)
  return [_planned(name, section, workdir, worker) for name, section in sections.items()]


def run(config: Mapping[str, Any], workdir: pathlib.Path, worker: Worker = Worker()) -> None:
  """Runs what is not finished; of what can be divided, this worker's part.

  Raises:
    Unfinished: the other workers have not done theirs yet.
  """
  jobs = plan(config, workdir, worker)
  for number, job in enumerate(jobs, 1):
    head = f'[{number}/{len(jobs)}] {job.folder.name}'
    # again: an earlier job of this run may have made what this one was made from
    job.folder.check()
    if job.folder.done:
      say(f'{head}: {job.status}')
      continue
    kind = job.folder.config['job']
    # processes that have joined each other are workers, too, but do the rest together
    if worker.count > jax.process_count() and kind not in DIVISIBLE:
      raise InputError(
        f'{job.folder.name} is not done, and cannot be divided among workers; run it without --worker first'
      )
    together = isinstance(job.config, train_stage.Training) or kind == 'generate'
    if jax.process_count() > 1 and not together:
      raise InputError(
        f'{job.folder.name} is not done, and runs in one process; run it without --distributed first'
      )
    say(head)
    job.folder.start()
    result = job.run(job.config, job.folder)
    if is_first():
      job.folder.finish(result)
    wait_for_all(job.folder.name)


def dry_run(config: Mapping[str, Any], workdir: pathlib.Path) -> str:
  """A line a job: what it is, and whether it is done, begun or left; what training will keep."""
  jobs = plan(config, workdir)
  width = max(len(job.folder.name) for job in jobs)
  kind_width = max(len(job.folder.config['job']) for job in jobs)
  sections = memory.Sections({job.folder.name: job.folder.config for job in jobs}, workdir)
  lines = []
  for job in jobs:
    lines.append(f'{job.folder.name:{width}}  {job.folder.config["job"]:{kind_width}}  {job.status}')
    if isinstance(job.config, train_stage.Training) and not job.folder.done:
      lines.append(f'{"":{width}}  {_memory(job, sections)}')
  num_done = sum(job.folder.done for job in jobs)
  return '\n'.join(
    lines + [f'{num_done} of {len(jobs)} jobs done, {len(jobs) - num_done} left, in {workdir}']
  )


def check(config: Mapping[str, Any], workdir: pathlib.Path, repair: bool) -> list[verify.Fault]:
  """The faults of the data sets that finished generate jobs have made; if `repair`, deletes them."""
  faults = []
  for job in plan(config, workdir):
    if job.folder.config['job'] == 'generate' and job.folder.done:
      found = verify.verify(job.folder.path)
      if repair:
        verify.repair(job.folder.path, found)
      faults += found
  return faults


def _memory(job: Planned, sections: memory.Sections) -> str:
  try:
    return memory.describe(job.config, job.folder.name, sections)
  except memory.NotKnown as error:
    return f'size not known: {error}'


def _ordered(config: Mapping[str, Any]) -> dict[str, Any]:
  for key in config:
    if key not in ('jobs', 'order'):
      raise InputError(f'config: unknown key {key}; known keys: job (and its settings), or jobs, order')
  for key in ('jobs', 'order'):
    if key not in config:
      raise InputError(f'config: missing key {key}')
  order, jobs = list(config['order']), config['jobs']
  for name in order:
    if name not in jobs:
      raise InputError(f'config: order names {name!r}, which is not in jobs')
  for name in jobs:
    if name not in order:
      raise InputError(f'config: jobs.{name} is not in order')
  return {name: jobs[name] for name in order}


def _planned(name: str, section: Mapping[str, Any], workdir: pathlib.Path, worker: Worker) -> Planned:
  if 'job' not in section:
    raise InputError(f'config: missing key {name}.job')
  if section['job'] not in JOBS:
    raise InputError(f'config: {name}.job is {section["job"]!r}, known: {", ".join(JOBS)}')
  config_class, run_fn = JOBS[section['job']]
  settings = build(config_class, {k: v for k, v in section.items() if k != 'job'}, name)
  folder = Folder(workdir, name, dict(section), worker)
  folder.check()
  return Planned(settings, run_fn, folder)
