"""The report's last section: which command, config, seed, revision and device have made each number."""

import json

from imagenet_synth.report.page import Block, Code, Heading, Paragraph, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, duration


def origins(results: Results) -> Section:
  """Returns a row for each job, to which figures and tables refer; the commands, and the jobs' configs."""
  jobs = results.jobs
  header = ['Job', 'Kind', 'Seeds', 'Made from', 'Time', 'Device', 'JAX', 'Code', 'Config hash']
  rows = [
    [
      job.name,
      job.kind,
      _seeds(job),
      ', '.join(job.origin['inputs']),
      duration(job.seconds),
      job.device,
      job.run.get('jax', ''),
      job.origin['revision'],
      job.origin['config_hash'],
    ]
    for job in jobs
  ]
  total = sum(job.seconds for job in jobs)
  table = Table(
    'Jobs whose numbers are above',
    header,
    rows,
    note=f'{duration(total)} in all, the report left out. A time is that from the last start of a job. Code: '
    'the git revision, and whether files had been edited, or the version that was installed. Empty: an '
    'earlier version of the program did not keep it.',
    anchors=[job.name for job in jobs],
  )
  return Section('Where it comes from', [table, *_commands(results), *_configs(results)])


def _seeds(job: FinishedJob) -> str:
  """Returns the seeds that a job's section names, or the default of one that draws or trains."""
  if 'seeds' in job.config:
    return ', '.join(map(str, job.config['seeds']))
  is_random = job.kind in ('pretrain', 'finetune', 'select', 'sweep', 'generate')
  return str(job.config.get('seed', 0)) if is_random else ''


def _commands(results: Results) -> list[Block]:
  """Returns the commands that have finished the jobs, with the names of these where there are several."""
  by_command: dict[str, list[str]] = {}
  for job in results.jobs:
    if command := job.run.get('command'):
      by_command.setdefault(command, []).append(job.name)
  if not by_command:
    return []
  blocks: list[Block] = [Heading('Commands')]
  for command, names in by_command.items():
    blocks += [Paragraph(f'{", ".join(names)}:')] if len(by_command) > 1 else []
    blocks.append(Code(command))
  return blocks


def _configs(results: Results) -> list[Block]:
  """Returns the section of the config that each job was made by, folded."""
  configs = [Code(json.dumps(job.config, indent=2), f'{job.name}: config') for job in results.jobs]
  return [Heading('Configs'), *configs]
