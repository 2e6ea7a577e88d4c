"""The report job: results of finished jobs go into report.html (one file), and report.md with figures/."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from imagenet_synth.core.config import Distinct, NotEmpty
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import say
from imagenet_synth.report.answer import in_short
from imagenet_synth.report.classes import per_class
from imagenet_synth.report.left_out import left_out
from imagenet_synth.report.origins import origins
from imagenet_synth.report.page import Section
from imagenet_synth.report.quality import quality
from imagenet_synth.report.results import FinishedJobReference, Results
from imagenet_synth.report.samples import samples
from imagenet_synth.report.scores import scores
from imagenet_synth.report.studies import classifiers, scaling
from imagenet_synth.report.sweeps import sweeps
from imagenet_synth.report.training import selection, training
from imagenet_synth.report.writing import write_page

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
  in_short,
  samples,
  classifiers,
  scaling,
  per_class,
  quality,
  scores,
  sweeps,
  selection,
  training,
  left_out,
  origins,
)
"""Functions that make the report's sections, in order; they return None where there is no job to tell of."""


@dataclasses.dataclass(frozen=True)
class Config:
  """What is reported, and under what title."""

  # the title at the head of the page
  title: str
  # the jobs that are reported, in order
  jobs: Annotated[tuple[FinishedJobReference, ...], NotEmpty(), Distinct()]


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Writes the report, and returns the titles of its sections."""
  results = Results([job.open(folder) for job in config.jobs], folder)
  sections = [section for make in SECTIONS if (section := make(results))]
  write_page(folder.path, 'report', config.title, sections)
  say(f'{folder.path / "report.html"}')
  return {'sections': [section.title for section in sections]}
