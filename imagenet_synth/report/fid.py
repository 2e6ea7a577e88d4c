"""How FID and its companions are written, and which of them cannot be told apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_synth.metrics.uncertainty import undecided
from imagenet_synth.report.results import FinishedJob, number, percent


def fids(figures_of: Mapping[str, Any]) -> list[str]:
  """Returns the names of the FIDs among figures, in their order."""
  return [name for name in figures_of if name.startswith('fid_')]


def fid_title(name: str) -> str:
  """Returns 'Train FID' for 'fid_train'."""
  return f'{name.removeprefix("fid_").capitalize()} FID'


def inception_score(figures_of: Mapping[str, Any]) -> str:
  """Returns the Inception Score as text; of a network that tells no classes there is none."""
  return number(figures_of['is']) if 'is' in figures_of else ''


def how_measured(job: FinishedJob, measured: dict[str, Any]) -> str:
  """Returns on what, and how well, FID and Inception Score were measured."""
  warning = f'; {measured["warning"]}' if 'warning' in measured else ''
  floors = ', '.join(
    f'{name.removeprefix("floor_")} {number(value)}'
    for name, value in measured.items()
    if name.startswith('floor_')
  )
  said = f' Noise floor, the FID that as many real images would have: {floors}.' if floors else ''
  # where the extractor itself is hardly better than guessing
  doubt = f' {job.result["doubt"]}.' if job.result['doubt'] else ''
  return f'{measured["num_samples"]:,} samples, features of {job.result["extractor"]}{warning}.{said}{doubt}'


def close_to_best(rows: Sequence[Mapping[str, Any]], choose: str) -> list[int]:
  """Returns the places of the rows of figures that cannot be told from the best one, itself among them.

  Args:
    rows: figures of as many samples each.
    choose: the figure that counts: 'cas', or a FID.
  """
  if choose == 'cas':
    cas = [percent(row['cas']['top_1']) for row in rows]
    return undecided([-mean for mean, _ in cas], [std or 0.0 for _, std in cas])
  floor = rows[0].get(f'floor_{choose.removeprefix("fid_")}', 0.0)
  return undecided([row[choose] for row in rows], floor)


def undecided_note(close: Sequence[int], choose: str) -> str:
  """Returns a sentence where several cannot be told apart by the figure that one was chosen by."""
  if len(close) < 2:
    return ''
  what, noise = ('CAS', 'the spread over seeds') if choose == 'cas' else ('FID', 'the noise floor')
  return f'Undecided between {len(close)}: their {what} differs by less than {noise}. '
