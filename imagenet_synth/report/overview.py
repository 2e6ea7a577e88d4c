"""The report's first and last sections: what was found, in short, and where it comes from."""

from imagenet_synth.report.accuracy import accuracies, trios
from imagenet_synth.report.page import Paragraph, Section, Table
from imagenet_synth.report.results import Results, spread


def in_short(results: Results) -> Section | None:
  """Returns what was found, in a few sentences; None where there is nothing to say."""
  blocks = []
  for trio in trios(accuracies(results)):
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
  for encoder in dict.fromkeys(job.result['encoder'] for job in results.of_kind('embed')):
    blocks.append(Paragraph(f'Text encoder: {encoder}.'))
  for extractor, caveat in _extractors(results):
    note = f', {caveat}' if caveat else ''
    blocks.append(Paragraph(f'FID and Inception Score use the features of {extractor}{note}.'))
  return Section('In short', blocks) if blocks else None


def _extractors(results: Results) -> list[tuple[str, str]]:
  """Returns each extractor that was used, and what a reader must know of it."""
  jobs = results.of_kind('select', 'sweep', 'evaluate')
  return list(dict.fromkeys((job.result['extractor'], job.result['caveat']) for job in jobs))


def origins(results: Results) -> Section:
  """Returns a row for each job: what made it, from what, and in how long."""
  rows = [
    [
      job.name,
      job.kind,
      f'{job.seconds:.0f}',
      job.origin['config_hash'],
      job.origin['revision'],
      ', '.join(job.origin['inputs']),
    ]
    for job in results.jobs
  ]
  total = sum(job.seconds for job in results.jobs)
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
