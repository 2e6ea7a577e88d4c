"""report: the results of finished jobs -> report.html (one file) and report.md with figures/."""

import dataclasses
from typing import Any

from imagenet_synth.core.files import read_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import say
from imagenet_synth.jobs.page import write_page
from imagenet_synth.jobs.report_sections import SECTIONS, Finished, Work


@dataclasses.dataclass(frozen=True)
class Config:
  """jobs: what is reported, in order. A section is left out if no job has what it shows."""
  title: str
  jobs: tuple[str, ...]


def run(config: Config, folder: Folder) -> dict[str, Any]:
  work = Work({name: _finished(name, folder) for name in config.jobs}, folder)
  sections = [section for make in SECTIONS if (section := make(work))]
  write_page(folder.path, 'report', config.title, sections)
  say(f'{folder.path / "report.html"}')
  return {'sections': [section.title for section in sections]}


def _finished(name: str, folder: Folder) -> Finished:
  path = folder.input(name)
  record = read_json(path / 'job.json')
  return Finished(name, record['job'], path, read_json(path / 'config.json'), record['result'],
                  record['origin'], record['seconds'])
