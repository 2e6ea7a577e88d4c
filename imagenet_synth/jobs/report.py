"""report: the results of finished jobs -> report.html (one file) and report.md with figures/."""

import dataclasses
from collections.abc import Callable
from typing import Any

from imagenet_synth.core.files import read_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import say
from imagenet_synth.jobs.page import Paragraph, Section, Table, write_page
from imagenet_synth.jobs.report_classifiers import accuracies, classifiers, per_class, scaling, trios
from imagenet_synth.jobs.report_generator import quality, samples, selection, sweeps, training
from imagenet_synth.jobs.report_work import Finished, Work, spread


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
  return Finished(
    name,
    record['job'],
    path,
    read_json(path / 'config.json'),
    record['result'],
    record['origin'],
    record['seconds'],
  )


def in_short(work: Work) -> Section | None:
  blocks = []
  for trio in trios(accuracies(work)):
    real, synthetic = trio.real.top_1, trio.synthetic.top_1
    num = trio.real.summary['top_1']['num']
    text = (
      f'{trio.real.model}, tested on real images it has not seen: {spread(real)} % when trained '
      f'on {trio.real.trained_on} images, {spread(synthetic)} % when trained on '
      f'{trio.synthetic.trained_on} ones (the Classification Accuracy Score; '
      f'{100 * synthetic[0] / real[0]:.1f} % of the former)'
    )
    if trio.both:
      text += f', {spread(trio.both.top_1)} % on {trio.both.trained_on}'
    if trio.not_finetuned:
      text += f'. The cascade that was not fine-tuned scores {spread(trio.not_finetuned.top_1)} %'
    blocks.append(Paragraph(f'{text}. Mean ± standard deviation over {num} seeds.'))
  for encoder in dict.fromkeys(job.result['encoder'] for job in work.of_kind('embed')):
    blocks.append(Paragraph(f'Text encoder: {encoder}.'))
  for extractor in _extractors(work):
    note = (
      ''
      if extractor.startswith('Inception-v3')
      else (
        ', a classifier trained on real images, not of Inception-v3: they can be compared within '
        'this report only'
      )
    )
    blocks.append(Paragraph(f'FID and Inception Score use the features of {extractor}{note}.'))
  return Section('In short', blocks) if blocks else None


def _extractors(work: Work) -> list[str]:
  jobs = work.of_kind('select', 'sweep', 'evaluate')
  return list(dict.fromkeys(job.result['extractor'] for job in jobs))


def origins(work: Work) -> Section:
  rows = [
    [
      job.name,
      job.kind,
      f'{job.seconds:.0f}',
      job.origin['config_hash'],
      job.origin['revision'],
      ', '.join(job.origin['inputs']),
    ]
    for job in work.jobs.values()
  ]
  total = sum(job.seconds for job in work.jobs.values())
  return Section(
    'Where it comes from',
    [
      Table(
        ['Job', 'Kind', 'Seconds', 'Config hash', 'Code', 'Made from'],
        rows,
        note=f'{total / 60:.1f} minutes in all, the report left out.',
      )
    ],
  )


SECTIONS: tuple[Callable[[Work], Section | None], ...] = (
  in_short,
  samples,
  classifiers,
  scaling,
  per_class,
  quality,
  sweeps,
  selection,
  training,
  origins,
)
