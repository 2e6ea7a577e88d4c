"""The report's first section: whether synthetic images help, by how much, how sure that is, at what cost."""

from collections.abc import Mapping, Sequence

from imagenet_synth.report import figures
from imagenet_synth.report.accuracy import Accuracy, Pair, accuracies, controls_of, jobs_of, model_name, pairs
from imagenet_synth.report.gains import Gain, gains_note
from imagenet_synth.report.page import Block, Lead, Paragraph, Picture, Points, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, duration, spread

# what was spent on what: kinds of jobs
_SPENT = {
  'training the generator': ('embed', 'pretrain', 'finetune', 'import_weights'),
  'choosing its checkpoint and settings': ('select', 'sweep'),
  'drawing': ('generate', 'reduce'),
  'training and testing': ('classify',),
  'measuring and publishing': ('evaluate', 'score', 'publish', 'import_extractor'),
}


def in_short(results: Results) -> Section:
  """Returns the answer, what it cost, one picture, and the same as a table; then what else is to be known."""
  rows = accuracies(results)
  answers = pairs(rows)
  blocks: list[Block] = [Lead(_headline(answers, rows)), *_controls(answers, rows), Paragraph(_cost(results))]
  if answers:
    compared = _compared(answers, rows)
    jobs = jobs_of([row for before_and_after in compared for row in before_and_after])
    blocks += [_picture(compared, rows, jobs), _table(compared, rows, jobs)]
  encoders = dict.fromkeys(job.result['encoder'] for job in results.of_kind('embed'))
  points = [f'Text encoder: {encoder}.' for encoder in encoders]
  for extractor, caveat, doubt in _extractors(results):
    note = f', {caveat}' if caveat else ''
    doubt = f' {doubt}.' if doubt else ''
    points.append(f'FID and Inception Score use the features of {extractor}{note}.{doubt}')
  return Section('In short', [*blocks, Points(points)] if points else blocks)


def _headline(answers: Sequence[Pair], rows: Sequence[Accuracy]) -> str:
  """Returns the answer over all classifiers and numbers of real images, none of them picked."""
  if not answers:
    return (
      'Whether synthetic images help was not measured: it takes a classifier that is trained on real images '
      'alone, and one on the same together with synthetic ones.'
    )
  if len(answers) == 1:
    return _answer(answers[0], rows)
  gains = [pair.both.gain_over(pair.real) for pair in answers]
  said = {
    'helps': 'helps in {}',
    'hurts': 'hurts in {}',
    'within the noise': 'makes no difference that could be told from noise in {}',
    'not known': 'has an effect that is not known in {}',
  }
  low, high = min(gain.points for gain in gains), max(gain.points for gain in gains)
  return (
    f'Synthetic data {_counted(said, gains)} of {len(answers)} comparisons: between {low:+.1f} and '
    f'{high:+.1f} points of top-1 accuracy on real test images, beside the same real images alone.'
  )


def _controls(answers: Sequence[Pair], rows: Sequence[Accuracy]) -> list[Paragraph]:
  """Returns how synthetic images compare with other labelled images in their place, if there are such."""
  gains = [control.gain_over(pair.both) for pair in answers for control in controls_of(pair.real, rows)]
  if not gains:
    return []
  said = {
    'helps': 'help more than synthetic images in {}',
    'hurts': 'help less in {}',
    'within the noise': 'cannot be told from them in {}',
    'not known': 'compare in a way that is not known in {}',
  }
  what = 'Controls, other labelled images in the place of synthetic ones,'
  return [Paragraph(f'{what} {_counted(said, gains)} of {len(gains)}.')]


def _counted(said: Mapping[str, str], gains: Sequence[Gain]) -> str:
  """Returns 'helps in 3 and hurts in 1': how many gains have which verdict, in the words that `said` has."""
  verdicts = [_help(gain) for gain in gains]
  parts = [words.format(verdicts.count(verdict)) for verdict, words in said.items() if verdict in verdicts]
  return f'{", ".join(parts[:-1])} and {parts[-1]}' if len(parts) > 1 else parts[0]


def _help(gain: Gain) -> str:
  """Returns what a gain says, in two words."""
  if gain.difference is None:
    return 'not known'
  if not gain.difference.excludes_zero:
    return 'within the noise'
  return 'helps' if gain.points > 0 else 'hurts'


def _answer(pair: Pair, rows: Sequence[Accuracy]) -> str:
  """Returns whether synthetic images beside real ones help a classifier, by how much, and how sure it is."""
  real, both = pair.real, pair.both
  gain = both.gain_over(real)
  seeds = ' and '.join(dict.fromkeys(str(row.summary['top_1']['num']) for row in (both, real)))
  answer = {
    'helps': 'Synthetic data helps',
    'hurts': 'Synthetic data hurts',
    'within the noise': 'No difference that could be told from noise',
    'not known': 'Not known whether synthetic data helps',
  }[_help(gain)]
  if gain.difference is None:
    sure = gain.verdict
  else:
    sure = f'95 % interval {gain.interval(1)}; '
    sure += (
      f'{seeds} seeds' if gain.difference.seeds_vary else 'with one seed, the spread over seeds is not known'
    )
  of = both.of_size + ('' if both.finetuned else ', of a cascade that was not fine-tuned,')
  return (
    f'{answer}: {model_name(real, rows)} with {real.num_real:,} real and {both.num_synthetic:,} synthetic '
    f'images{of} gets {both.top_1[0]:.1f} % of {both.num_test:,} real test images right, with the real ones '
    f'alone {real.top_1[0]:.1f} %: {gain.points:+.1f} points ({sure}).'
  )


def _compared(answers: Sequence[Pair], rows: Sequence[Accuracy]) -> list[tuple[Accuracy, Accuracy]]:
  """Returns (real images alone, what was added to them): synthetic images, then the controls beside them."""
  found = []
  for pair in answers:
    found.append((pair.real, pair.both))
    found += [(pair.real, control) for control in controls_of(pair.real, rows)]
  return found


def _picture(
  compared: Sequence[tuple[Accuracy, Accuracy]], rows: Sequence[Accuracy], jobs: Sequence[str]
) -> Picture:
  intervals = []
  for real, both in compared:
    gain = both.gain_over(real)
    ends = gain.difference and (100 * gain.difference.low, 100 * gain.difference.high)
    interval = f' ({gain.interval(1)})' if ends else ''
    name = f'{model_name(real, rows)}: {real.num_real:,} real + {_added(both)}'
    intervals.append(
      figures.Interval(name, gain.points, ends, f'{gain.points:+.1f}{interval}', bool(both.num_stand_in))
    )
  controls = ' Grey: controls, other labelled images in the place of synthetic ones.'
  caption = (
    'What images add to real ones, in points of top-1 accuracy, with 95 % intervals; right of the line they '
    f'help.{controls if any(row.is_control for row in intervals) else ""}'
  )
  alt = 'Intervals beside a line at 0. ' + '; '.join(f'{row.name}: {row.text}' for row in intervals) + '.'
  return Picture('gains', figures.gains(intervals), caption, alt, jobs)


def _added(both: Accuracy) -> str:
  """Returns what was added to real images, in few words."""
  if both.num_stand_in:
    return f'{both.num_stand_in:,} (control)'
  return f'{both.num_synthetic:,}{both.of_size}{"" if both.finetuned else " (not fine-tuned)"}'


def _table(
  compared: Sequence[tuple[Accuracy, Accuracy]], rows: Sequence[Accuracy], jobs: Sequence[str]
) -> Table:
  gains = [both.gain_over(real) for real, both in compared]
  cells = [
    [
      model_name(real, rows),
      both.trained_on,
      spread(both.top_1),
      str(gain),
      ('control ' if both.num_stand_in else '') + _help(gain),
      spread(real.top_1),
      str(both.summary['top_1']['num']),
    ]
    for (real, both), gain in zip(compared, gains)
  ]
  header = ['Classifier', 'Trained on', 'Top-1 (%)', 'Gain', 'Verdict', 'Real alone (%)', 'Seeds']
  mixed = (
    'Where several numbers of synthetic images were tried, it is the largest one: what is best on test '
    'images must not be chosen by them. '
  )
  return Table(
    'Top-1 accuracy on real test images, with and without synthetic ones',
    header,
    cells,
    note=f'Mean ± standard deviation over seeds. {mixed}{gains_note(gains)}',
    jobs=jobs,
  )


def _cost(results: Results) -> str:
  """Returns how long it all took, on what, and on what that was spent."""
  total = sum(job.seconds for job in results.jobs)
  devices = dict.fromkeys(job.device for job in results.jobs if job.device)
  parts = []
  for what, kinds in _SPENT.items():
    jobs = results.of_kind(*kinds)
    if jobs:
      parts.append(f'{what}{_of_what(jobs)} {duration(sum(job.seconds for job in jobs))}')
  on = f' on {", ".join(devices)}' if devices else ''
  return f'It took {duration(total)}{on}: {"; ".join(parts)}.'


def _of_what(jobs: Sequence[FinishedJob]) -> str:
  """Returns how many images jobs have drawn, or classifiers they have trained; '' for other jobs."""
  drawn = [job.result for job in jobs if job.kind == 'generate']
  runs = sum(len(job.result['runs']) for job in jobs if job.kind == 'classify')
  if drawn:
    steps = dict.fromkeys(
      ' + '.join(str(stage['sampler']['num_steps']) for stage in of['stages']) for of in drawn
    )
    num = sum(sum(of['class_counts']) for of in drawn)
    return f' {num:,} images ({" or ".join(steps)} steps of the samplers each)'
  return f' {runs:,} classifiers' if runs else ''


def _extractors(results: Results) -> list[tuple[str, str, str]]:
  """Returns the networks that FID and Inception Score are of, what to know of them, and what to doubt."""
  jobs = results.of_kind('select', 'sweep', 'evaluate')
  keys = ('extractor', 'caveat', 'doubt')
  return list(dict.fromkeys(tuple(job.result[key] for key in keys) for job in jobs))
