"""The table of a dry run: hours and money by hand, what fits, what is not known."""

import json

import pytest

from imagenet_synth.core.accelerators import Accelerator
from imagenet_synth.core.errors import InputError
from imagenet_synth.cost.jobs import Cost
from imagenet_synth.cost.memory import Division
from imagenet_synth.cost.table import Measured, Prices, Row, fitting, lines, measured, sentence, settings_of

_GB = 10**9
# a peta-operation a second, half of which is reached
_DEVICE = Accelerator('Device', 1000, 10, 'nobody')
_PRICES = Prices(_DEVICE, 0.5, 2.0)


def _memory(division):
  """Weights of 40 GB, and 1 GB an image of a batch of 64."""
  return 40 * _GB // division.fsdp + _GB * division.rows(64)


def _cost(num_devices=8, **more):
  settings = dict(memory=_memory, division=Division(num_devices), batch_size=64, num_trained=64)
  return Cost(1000, 3600 * 1e15, **(settings | more))


def _cells(row, prices=_PRICES):
  return lines([row], prices)[1].split()


def test_hours_and_money_are_of_all_devices_at_their_share_of_the_peak():
  """3,600 seconds of one device at its peak: two at half of it, a quarter on eight of them."""
  assert _cells(Row('job', 'pretrain', 'left', _cost()))[-2:] == ['0.25', '4']
  head, _, total, *_ = lines([Row('a', 'b', 'left', _cost())] * 1, Prices(_DEVICE, 1.0))
  assert head.split()[-1] == 'hours' and total.split()[-1] == '0.12'


def test_a_rate_that_was_measured_comes_before_the_estimate():
  """50 s for the first 100 of 7,200 steps, then 2 a second."""
  cells = _cells(
    Row('job', 'pretrain', 'begun', _cost(num_trained=64 * 7200), measured=Measured(100, 50.0, 2.0))
  )
  assert cells[-2:] == ['1*', '16']


def test_totals_are_sums_of_operations_and_disk_and_the_most_memory():
  rows = [Row('a', 'k', 'left', _cost(disk=2e9)), Row('b', 'k', 'left', Cost(flops=None, unknown='the data'))]
  text = lines(rows, Prices())
  assert text[2].split() == ['b', 'k', 'left', '-', '-', '-', '0', '700.0', 'MB']
  assert text[3].split() == ['total', '3.6e+18', '48.0', 'GB', '2.0', 'GB', '700.0', 'MB']
  assert text[-1] == '- stands where it is not known yet: the data'


@pytest.mark.parametrize(
  'memory, found, said',
  [
    (lambda division: 9 * _GB, Division(8), ''),
    (lambda division: _GB * division.rows(64), Division(8), ''),
    (lambda division: 2 * _GB * division.rows(64), Division(8, accumulate=2), 'accumulate=2'),
    (_memory, Division(8, 8, 1, 2), 'fsdp=8, accumulate=2'),
    (lambda division: 11 * _GB, None, ''),
  ],
)
def test_what_fits_is_found_with_the_smallest_change(memory, found, said):
  cost = _cost(memory=memory, has_mesh=True)
  assert fitting(cost, _DEVICE) == found
  if found is not None:
    assert settings_of(cost, found) == said


def test_a_job_that_does_not_fit_is_named_with_settings_that_do():
  text = '\n'.join(lines([Row('job', 'pretrain', 'left', _cost(has_mesh=True))], _PRICES))
  assert 'job does not fit into 10 GB as it is; it does with fsdp=8, accumulate=2' in text
  # sampling has smaller batches in place of accumulation, and whole weights
  sampling = _cost(memory=lambda division: 3 * _GB * division.rows(64), num_trained=0)
  text = '\n'.join(lines([Row('job', 'generate', 'left', sampling)], _PRICES))
  assert 'it does with batch_size=16' in text
  text = '\n'.join(lines([Row('job', 'generate', 'left', _cost(num_trained=0))], _PRICES))
  assert 'it does with no division of the work' in text


def test_a_sentence_says_what_a_job_costs():
  row = Row('job', 'pretrain', 'left', _cost(disk=2e9))
  assert sentence(row, _PRICES) == (
    '1,000 parameters, 3.6e+18 FLOPs, 48.0 GB on each device, 2.0 GB of disk, 0.25 hours, at 4 in all'
  )
  assert sentence(Row('report', 'report', 'left', Cost()), _PRICES) == ''


def test_the_rate_of_a_run_leaves_out_what_comes_before_its_first_metrics(tmp_path):
  """Ten steps in 5 s, then a kill, and ten more in 10 s."""
  assert measured(tmp_path) is None
  times = [
    (0, 0, True),
    (10, 100, False),
    (20, 105, False),
    (15, 900, True),
    (25, 990, False),
    (35, 1000, False),
  ]
  text = ''
  for step, time, start in times:
    text += json.dumps({'step': step, 'time': time} | ({'start': True} if start else {})) + '\n'
  (tmp_path / 'times.jsonl').write_text(text + '{"step": 40, "ti')
  rate = measured(tmp_path)
  assert rate == (10, 100, pytest.approx(20 / 15))
  assert rate.seconds(30) == pytest.approx(100 + 20 / (20 / 15))


@pytest.mark.parametrize('more', [dict(utilisation=0.0), dict(utilisation=1.5), dict(price=-1.0)])
def test_impossible_prices_are_refused(more):
  with pytest.raises(InputError, match=f'--{next(iter(more))} is'):
    Prices(_DEVICE, **more)
