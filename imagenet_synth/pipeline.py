"""Jobs in the order of a config: planned, checked and run.

A config has `jobs`, a section for each by name; `order`, their names; and, if not all of them are to be run,
`only`, the names of those that are. The whole config is checked before anything runs. Jobs that are finished
are skipped, so that the same command again goes on where it was.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
from etils import epath

from imagenet_synth.core.claims import claimed
from imagenet_synth.core.compilation import telling
from imagenet_synth.core.config import Invalid, build, execution_keys, parts, references
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import alone, comes_to_be, first_before_others, is_first, wait_for_all
from imagenet_synth.core.progress import keeping_state, say
from imagenet_synth.cost import table
from imagenet_synth.cost.jobs import cost_of
from imagenet_synth.data import verification
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import require_held_out
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.jobs import (
  classify,
  embed,
  evaluate,
  finetune,
  generate,
  import_extractor,
  import_weights,
  pretrain,
  publish,
  reduce,
  report,
  score,
  select,
  sweep,
)
from imagenet_synth.status import state_path, write_order


class JobKind(NamedTuple):
  """A kind of job: what is done for a section whose `job` key names it."""

  # the dataclass that the rest of the section is built as
  config: type
  # does the job, given its configuration and folder, and returns its result
  run: Callable[[Any, JobFolder], dict[str, Any]]
  # how several processes do it: 'divided', each its part, whether or not they have joined each other;
  # 'together', only as processes that have; 'alone', the first of these, and the others wait
  shared: Literal['divided', 'together', 'alone'] = 'divided'


JOBS: dict[str, JobKind] = {
  'embed': JobKind(embed.Config, embed.run, 'together'),
  'import_weights': JobKind(import_weights.Config, import_weights.run, 'alone'),
  'import_extractor': JobKind(import_extractor.Config, import_extractor.run, 'alone'),
  'pretrain': JobKind(pretrain.Config, pretrain.run, 'together'),
  'finetune': JobKind(finetune.Config, finetune.run, 'together'),
  'select': JobKind(select.Config, select.run),
  'sweep': JobKind(sweep.Config, sweep.run),
  'generate': JobKind(generate.Config, generate.run),
  'reduce': JobKind(reduce.Config, reduce.run),
  'score': JobKind(score.Config, score.run),
  'publish': JobKind(publish.Config, publish.run),
  'evaluate': JobKind(evaluate.Config, evaluate.run),
  'classify': JobKind(classify.Config, classify.run),
  'report': JobKind(report.Config, report.run, 'alone'),
}
"""All kinds of jobs, by name."""

OWN_FOLDERS = ('datasets', 'progress', 'references')
"""Folders of a workdir that belong to no job."""


@dataclasses.dataclass(frozen=True)
class PlannedJob:
  """A job whose configuration has been checked."""

  # its name in the config
  name: str
  # what it does
  kind: JobKind
  # its section, built as the kind's dataclass
  config: Any
  # its folder in the workdir
  folder: JobFolder

  @property
  def status(self) -> str:
    """Returns 'done in 3 s', 'begun' or 'left'."""
    if self.folder.done:
      return f'done in {self.folder.record["seconds"]:.0f} s'
    return 'begun' if self.folder.started else 'left'

  def missing_files(self, made: Sequence[epath.Path] = ()) -> Iterator[str]:
    """Yields a sentence for each file that the job needs and that is not there.

    Files below the folders `made`, which other jobs of the same run make, may be still to come.
    """
    files: Callable[[], dict[str, epath.Path]] = getattr(self.config, 'files', dict)
    for key, path in files().items():
      if not path.exists() and not any(folder in path.parents for folder in made):
        yield f"config: jobs.{self.name}.{key} is '{path}', which is not there"


@dataclasses.dataclass(frozen=True)
class Plan:
  """The jobs of a config that are to be run, and what is known of all."""

  # the jobs to run, in order
  planned: Sequence[PlannedJob]
  # the configurations of all jobs, and of those in the workdir that they refer to
  known: KnownJobs


def plan(config: Mapping[str, Any], workdir: epath.Path, worker: Worker = Worker()) -> Plan:
  """Returns the jobs to run, having checked the whole configuration and the folders that are there.

  Raises:
    InputError: the config has a fault, the first of which the message names by its key, or the folder of a
      job holds work of another configuration or of inputs that have changed.
  """
  sections, only = _sections(config)
  configs = {name: _build(name, section) for name, section in sections.items()}
  kinds = {name: section['job'] for name, section in sections.items()}
  order = list(sections)
  _add_from_workdir(configs, kinds, workdir)
  for name in order:
    _check_references(name, configs[name], order, kinds)
  known = KnownJobs(configs, workdir)
  for name in order:
    _call(name, 'check', configs[name], known)
  for name in order:
    require_held_out(name, known)
  jobs = []
  for name in order:
    folder = _folder(workdir, name, sections[name], configs[name], worker)
    jobs.append(PlannedJob(name, JOBS[kinds[name]], configs[name], folder))
  versions: dict[str, dict[str, str | None]] = {}
  to_come: list[str] = []
  for job in jobs:
    job.folder.check(to_come)
    job.folder.check_data(_data_versions(job, workdir, versions))
    if job.name in only and not job.folder.done:
      to_come.append(job.name)
      _call(job.name, 'require_devices', job.config)
  return Plan([job for job in jobs if job.name in only], known)


def run(
  config: Mapping[str, Any],
  workdir: epath.Path,
  worker: Worker = Worker(),
  prices: table.Prices | None = None,
) -> None:
  """Runs the jobs that are not finished; of those that are divided, this worker's part.

  With `prices`, the cost of each job is told before it begins.

  Raises:
    InputError: the configuration is wrong, something that a job reads is not there or cannot be used, or
      another process is at one of the jobs.
    Unfinished: the other workers have not done theirs yet.
    Stopped: the program was told to stop; what it had is saved.
  """
  planned = plan(config, workdir, worker)
  jobs = planned.planned
  _check_ready(jobs, workdir, worker)
  for job in jobs:
    if not job.folder.done:
      _call(job.name, 'require_images', job.config, planned.known)
  with claimed(workdir, [job.name for job in jobs if not job.folder.done], worker):
    if is_first():
      write_order(workdir, {job.name: job.folder.config['job'] for job in jobs})
    _run(planned, worker, prices)


def _run(planned: Plan, worker: Worker, prices: table.Prices | None) -> None:
  """Runs the jobs of a plan, in order, but those that are finished."""
  jobs = planned.planned
  for number, job in enumerate(jobs, 1):
    head = f'[{number}/{len(jobs)}] {job.name}'
    # again: an earlier job of this run may have made what this one was made from
    job.folder.check()
    if job.folder.done:
      say(f'{head}: {job.status}')
      continue
    if not worker.joined and worker.count > 1 and job.kind.shared != 'divided':
      raise InputError(
        f'{job.name} is not done, and cannot be divided among workers; run it without --worker first'
      )
    said = '' if prices is None else table.sentence(_row(job, planned.known), prices)
    say(': '.join(filter(None, (head, said))))
    with keeping_state(state_path(job.folder.workdir, job.name, worker)), telling(job.name):
      _do(job)


def _do(job: PlannedJob) -> None:
  """Does a job, or this process's part of it; of joined processes all return when it is done.

  Raises:
    Unfinished: other workers have not done theirs yet.
  """
  with first_before_others(f'{job.name}: its folder'):
    if is_first():
      job.folder.start()
  if is_first():
    with alone() if job.kind.shared == 'alone' else contextlib.nullcontext():
      result = job.kind.run(job.config, job.folder)
    job.folder.finish(result)
  elif job.kind.shared != 'alone':
    with contextlib.suppress(Unfinished):
      job.kind.run(job.config, job.folder)
  wait_for_all(f'{job.name}: its end')
  comes_to_be((job.folder.path / 'job.json').exists)


def dry_run(config: Mapping[str, Any], workdir: epath.Path, prices: table.Prices = table.Prices()) -> str:
  """Returns a text of what would be run: a table of all jobs with status and cost, and how many are done.

  Between them stand the files that are missing. The cost is of the whole job, whatever of it is done.

  Raises:
    InputError: the configuration is wrong.
  """
  planned = plan(config, workdir)
  jobs = planned.planned
  rows = [_row(job, planned.known) for job in jobs]
  missing = [of for job in jobs if not job.folder.done for of in job.missing_files()]
  num_done = sum(job.folder.done for job in jobs)
  total = f'{num_done} of {len(jobs)} jobs done, {len(jobs) - num_done} left, in {workdir}'
  return '\n'.join([*table.lines(rows, prices), *missing, total])


def _row(job: PlannedJob, known: KnownJobs) -> table.Row:
  """Returns what a table of costs has of a job."""
  cost = cost_of(job.config, known, jax.device_count())
  rate = table.measured(job.folder.path)
  return table.Row(job.name, job.folder.config['job'], job.status, cost, rate)


def verify(
  config: Mapping[str, Any], workdir: epath.Path, repair: bool = False, worker: Worker = Worker()
) -> tuple[list[verification.Fault], int]:
  """Returns the faults of what finished jobs have left, and how many files this worker has looked at.

  With `repair`, faulty files of generate and reduce jobs are deleted, so that the next run makes them again.

  Raises:
    InputError: the configuration is wrong.
  """
  sections, only = _sections(config)
  found: list[verification.Fault] = []
  num_checked = 0

  def look(checks: Iterator[verification.Check], what: epath.Path, remedy: str) -> list[epath.Path]:
    nonlocal num_checked
    mine = worker.part(list(checks))
    num_checked += len(mine)
    faults = list(verification.faults(mine, f'verify {what}')) if mine else []
    found.extend(fault._replace(what=f'{fault.what}; {remedy}') for fault in faults)
    return [fault.path for fault in faults]

  # not by the plan, which a damaged folder may keep from being made
  for name in only:
    folder = workdir / name
    if not (folder / 'job.json').exists():
      continue
    if sections[name]['job'] in Samples.kinds:
      remedy = 'deleted: run again to make it' if repair else '--verify --repair lets it be made again'
      faulty = look(verification.job_checks(folder), folder, remedy)
      if repair:
        verification.repair(folder, faulty)
    else:
      look(verification.job_checks(folder), folder, f'--redo {name} makes it anew')
  for shared in ('references', 'datasets'):
    look(verification.shared_checks(workdir / shared), workdir / shared, 'it is made again when it is needed')
  return found, num_checked


def redo(config: Mapping[str, Any], workdir: epath.Path, names: Sequence[str]) -> list[str]:
  """Deletes the work of jobs and of all that was made from it; returns the names of these jobs, in order.

  Of a data set that grows, shards stay until it is known which of their images would be drawn the same again.

  Raises:
    InputError: a job is not in the config, the config is wrong, or another process is at one of the jobs.
  """
  sections, _ = _sections(config)
  configs = {name: _build(name, section) for name, section in sections.items()}
  for name in names:
    if name not in configs:
      raise InputError(f'--redo: there is no job {name!r}; known: {", ".join(configs)}')
  cleared = set(names)
  for name, built in configs.items():
    if any(reference.name in cleared for _, reference in references(built, '')):
      cleared.add(name)
  in_order = [name for name in configs if name in cleared and (workdir / name).exists()]
  with claimed(workdir, in_order, Worker()):
    for name in in_order:
      say(f'--redo: {name} is cleared')
      _folder(workdir, name, sections[name], configs[name], Worker()).clear()
  return in_order


def _sections(config: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], Sequence[str]]:
  """Returns the sections in order, and the names of the jobs that are to be run.

  Raises:
    InputError: the config has other keys, or names that are unknown, doubled or no folder's.
  """
  for key in config:
    if key not in ('jobs', 'order', 'only'):
      raise InputError(f'config: unknown key {key}; known keys: jobs, order, only')
  for key, kind, what in (('jobs', Mapping, 'a section for each job'), ('order', list, 'a list of names')):
    if key not in config:
      raise InputError(f'config: missing key {key}')
    if not isinstance(config[key], kind) or not config[key]:
      raise InputError(f'config: {key} is {config[key]!r}, must be {what}')
  jobs, order = config['jobs'], config['order']
  for i, name in enumerate(order):
    if not isinstance(name, str) or name not in jobs:
      raise InputError(f'config: order[{i}] is {name!r}, which is not in jobs')
    if name in order[:i]:
      raise InputError(f'config: order[{i}] is {name!r}, which is there twice')
    if not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.-]*', name) or name in OWN_FOLDERS:
      raise InputError(
        f'config: jobs.{name} is a folder: it must have a name of letters, digits, _ and -, other than '
        f'{", ".join(OWN_FOLDERS)}'
      )
  for name in jobs:
    if name not in order:
      raise InputError(f'config: jobs.{name} is not in order')
  only = config.get('only') or order
  if not isinstance(only, list):
    raise InputError(f'config: only is {only!r}, must be a list of names')
  for i, name in enumerate(only):
    if name not in order:
      raise InputError(f'config: only[{i}] is {name!r}, which is not in jobs')
  return {name: jobs[name] for name in order}, only


def _build(name: str, section: Any) -> Any:
  """Returns the configuration of a job; raises InputError if its section has a fault."""
  where = f'jobs.{name}'
  if not isinstance(section, Mapping):
    raise InputError(f'config: {where} must be a section of keys, not {section!r}')
  if 'job' not in section:
    raise InputError(f'config: missing key {where}.job (one of: {", ".join(JOBS)})')
  if not isinstance(section['job'], str) or section['job'] not in JOBS:
    raise InputError(f'config: {where}.job is {section["job"]!r}, known: {", ".join(JOBS)}')
  settings = {key: value for key, value in section.items() if key != 'job'}
  return build(JOBS[section['job']].config, settings, where)


def _folder(
  workdir: epath.Path, name: str, section: Mapping[str, Any], config: Any, worker: Worker
) -> JobFolder:
  """Returns the folder of a job, from its section and what that was built as."""
  grows = getattr(config, 'grows', ())
  return JobFolder(workdir, name, dict(section), worker, grows, execution_keys(config))


def _add_from_workdir(configs: dict[str, Any], kinds: dict[str, str], workdir: epath.Path) -> None:
  """Adds the jobs that others refer to and that are not in the config but have a folder in the workdir."""
  unseen = list(configs)
  while unseen:
    for _, reference in references(configs[unseen.pop()], ''):
      path = workdir / reference.name / 'config.json'
      if reference.name not in configs and path.exists():
        section = read_json(path)
        configs[reference.name] = _build(reference.name, section)
        kinds[reference.name] = section['job']
        unseen.append(reference.name)


def _check_references(name: str, config: Any, order: Sequence[str], kinds: Mapping[str, str]) -> None:
  """Raises InputError if a job refers to one that does not exist, comes later or is of the wrong kind."""
  for key, reference in references(config, f'jobs.{name}'):
    of = reference.name
    if of not in kinds:
      raise InputError(f'config: {key} is {of!r}, which is no job of this config, nor one in the workdir')
    if of in order and order.index(of) >= order.index(name):
      raise InputError(f'config: {key} is {of!r}, which does not come before {name} in order')
    if reference.kinds and kinds[of] not in reference.kinds:
      raise InputError(
        f'config: {key} is {of!r}, a job of kind {kinds[of]}; wanted is one of {", ".join(reference.kinds)}'
      )


def _data_versions(
  job: PlannedJob, workdir: epath.Path, known: dict[str, dict[str, str | None]]
) -> dict[str, str | None]:
  """Returns the versions of all data that a job names, by what it is called; `known` keeps them."""
  versions: dict[str, str | None] = {}
  if not job.folder.started:
    return versions
  for _, config in parts(job.config, DatasetConfig):
    key = str(config)
    if key not in known:
      known[key] = config.versions(workdir)
    versions |= known[key]
  return versions


def _call(name: str, method: str, config: Any, *arguments: Any) -> None:
  """Calls a method of a job's configuration, if it has it; raises a fault as an InputError with its name."""
  if not hasattr(config, method):
    return
  try:
    getattr(config, method)(*arguments)
  except Invalid as fault:
    raise fault.below(f'jobs.{name}') from None


def _check_ready(jobs: Sequence[PlannedJob], workdir: epath.Path, worker: Worker) -> None:
  """Raises InputError if a job that is left needs a missing file, or an unfinished job not run here."""
  here = {job.name for job in jobs}
  for job in jobs:
    if job.folder.done:
      continue
    for missing in job.missing_files(made=[workdir / name for name in here]):
      raise InputError(missing)
    for key, reference in references(job.config, f'jobs.{job.name}'):
      if reference.name not in here and not (workdir / reference.name / 'job.json').exists():
        raise InputError(
          f'{job.name} needs {reference.name}, which has not been run to its end: no job.json in '
          f'{workdir / reference.name} (config: {key})'
        )
