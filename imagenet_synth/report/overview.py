"""The report's first and last sections: what was found, in short, and where it comes from."""

from collections.abc import Sequence

from imagenet_synth.report.accuracy import Accuracy, Pair, Trio, accuracies, model_name, pairs, trios
from imagenet_synth.report.page import Block, Paragraph, Section, Table
from imagenet_synth.report.results import Results, spread


def in_short(results: Results) -> Section | None:
  """Returns what was found, in a few sentences; None where there is nothing to say.

  The first is the answer to whether synthetic images help a classifier, by how much, and how sure that is.
  """
  rows = accuracies(results)
  answers = pairs(rows)
  blocks: list[Block] = [Paragraph(_answer(pair, rows)) for pair in answers]
  for trio in trios(rows):
    blocks.append(Paragraph(_verdict(trio, answered=any(trio.both is pair.both for pair in answers))))
  for encoder in dict.fromkeys(job.result['encoder'] for job in results.of_kind('embed')):
    blocks.append(Paragraph(f'Text encoder: {encoder}.'))
  for extractor, caveat, doubt in _extractors(results):
    note = f', {caveat}' if caveat else ''
    doubt = f' {doubt}.' if doubt else ''
    blocks.append(Paragraph(f'FID and Inception Score use the features of {extractor}{note}.{doubt}'))
  return Section('In short', blocks) if blocks else None


def _answer(pair: Pair, rows: Sequence[Accuracy]) -> str:
  """Returns whether synthetic images beside real ones help a classifier, by how much, and how sure it is."""
  real, both = pair.real, pair.both
  gain = both.gain_over(real)
  seeds = ' and '.join(dict.fromkeys(str(row.summary['top_1']['num']) for row in (both, real)))
  if gain.difference is None:
    answer, sure = 'Not known whether synthetic data helps', gain.verdict
  else:
    sure = f'95 % interval {gain.interval(1)}; '
    sure += (
      f'{seeds} seeds' if gain.difference.seeds_vary else 'with one seed, the spread over seeds is not known'
    )
    answer = 'No difference that could be told from noise'
    if gain.difference.excludes_zero:
      answer = f'Synthetic data {"helps" if gain.points > 0 else "hurts"}'
  of = f' of {both.synthetic_size}x{both.synthetic_size}' if both.synthetic_size else ''
  of += '' if both.finetuned else ', of a cascade that was not fine-tuned,'
  return (
    f'{answer}: {model_name(real, rows)} with {real.num_real:,} real and {both.num_synthetic:,} synthetic '
    f'images{of} gets {both.top_1[0]:.1f} % of {both.num_test:,} real test images right, with the real ones '
    f'alone {real.top_1[0]:.1f} %: {gain.points:+.1f} points ({sure}).'
  )


def _verdict(trio: Trio, answered: bool) -> str:
  """Returns what one classifier gets from real, synthetic and both, and what that is worth.

  What it gets from both is left out if that was `answered` before.
  """
  real, synthetic = trio.real, trio.synthetic
  text = (
    f'{real.model}, tested on {real.num_test:,} real images that it has not seen, gets '
    f'{spread(real.top_1)} % of them right when it is trained on {real.trained_on} images. Trained on '
    f'{synthetic.trained_on} ones alone, it gets {spread(synthetic.top_1)} % (the Classification Accuracy '
    f'Score), {_worth(trio)}'
  )
  if trio.both and not answered:
    gain = trio.both.gain_over(real)
    text += f'. On {trio.both.trained_on}: {spread(trio.both.top_1)} %, {gain} points, {gain.verdict}'
  if trio.not_finetuned:
    text += f'. The cascade that was not fine-tuned scores {spread(trio.not_finetuned.top_1)} %'
  num = real.summary['top_1']['num']
  return f'{text}. Mean ± standard deviation over {num} seeds.' if num > 1 else f'{text}. One seed.'


def _worth(trio: Trio) -> str:
  """Returns what the synthetic images alone are worth, beside guessing and real ones."""
  real, synthetic = trio.real, trio.synthetic
  guessing = f'where guessing gives {real.chance:.3g} %'
  if not real.beats_guessing:
    return (
      f'{guessing}: even real images hardly train this classifier, so nothing can be said of synthetic ones; '
      'next: more real images, more steps, a larger network'
    )
  if not synthetic.beats_guessing:
    return f'{guessing}: worthless so far; next: more steps of training, a larger network'
  share = 100 * (synthetic.top_1[0] - real.chance) / (real.top_1[0] - real.chance)
  return f'{guessing}: {share:.0f} % of what the real images give above that'


def _extractors(results: Results) -> list[tuple[str, str, str]]:
  """Returns the networks that FID and Inception Score are of, what to know of them, and what to doubt."""
  jobs = results.of_kind('select', 'sweep', 'evaluate')
  keys = ('extractor', 'caveat', 'doubt')
  return list(dict.fromkeys(tuple(job.result[key] for key in keys) for job in jobs))


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
