"""Finished jobs as they are read from their folders, and how numbers are written."""

import math

import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.report.results import (
  FinishedJobReference,
  duration,
  is_finetuned,
  number,
  percent,
  spread,
)
from tests.report import hand_made


def test_a_finished_job_is_all_that_its_folder_says(tmp_path):
  JobFolder(tmp_path, 'embed', {'job': 'embed'}).start()
  JobFolder(tmp_path, 'embed', {'job': 'embed'}).finish({})
  made = JobFolder(tmp_path, 'generate', {'job': 'generate', 'seed': 3})
  made.start()
  made.input('embed')
  made.finish({'num_images': 7})
  report = JobFolder(tmp_path, 'report', {'job': 'report'})
  job = FinishedJobReference('generate').open(report)
  assert (job.name, job.kind, job.path) == ('generate', 'generate', tmp_path / 'generate')
  assert job.config == {'job': 'generate', 'seed': 3} and job.result == {'num_images': 7}
  assert list(job.origin['inputs']) == ['embed'] and job.seconds >= 0 and job.run['num_devices'] == 8
  # what the report was made from is known, too
  assert list(report.origin['inputs']) == ['generate']


def test_an_unfinished_job_is_not_reported(tmp_path):
  JobFolder(tmp_path, 'generate', {'job': 'generate'}).start()
  with pytest.raises(InputError, match='report needs generate, which has not been run to its end'):
    FinishedJobReference('generate').open(JobFolder(tmp_path, 'report', {}))


def test_jobs_of_some_kinds_come_in_the_order_of_the_report():
  kinds = ('sweep', 'embed', 'select', 'sweep')
  jobs = [hand_made.job(kind, f'{kind}_{i}', {}, {}) for i, kind in enumerate(kinds)]
  results = hand_made.results(*jobs)
  assert [job.name for job in results.of_kind('select', 'sweep')] == ['sweep_0', 'select_2', 'sweep_3']
  assert results.of_kind('evaluate') == []


def test_the_base_says_whether_a_data_set_is_finetuned():
  """Its other stages may be frozen ones."""
  of = lambda *kinds: hand_made.job('generate', 'g', {'stages': [{'kind': kind} for kind in kinds]}, {})
  assert is_finetuned(of('finetune', 'pretrain')) and not is_finetuned(of('pretrain', 'finetune'))


def test_shares_become_percent_with_or_without_a_deviation():
  assert percent({'mean': 0.875, 'std': 0.0625, 'num': 3}) == (87.5, 6.25)
  assert percent({'mean': 0.875, 'std': None, 'num': 1}) == (87.5, None)
  assert spread((98.834, 0.136)) == '98.83 ± 0.14' and spread((98.834, None)) == '98.83'
  # no spread over seeds is not the same as none known
  assert spread((50.0, 0.0)) == '50.00 ± 0.00'


@pytest.mark.parametrize(
  'value, text',
  [
    (1.23456, '1.23'),
    (0.0123456, '0.0123'),
    (12.3456, '12.3'),
    (99.96, '100'),
    (123.456, '123'),
    (1234.56, '1235'),
    (-1.23456, '-1.23'),
    (0, '0'),
    (math.nan, 'nan'),
  ],
)
def test_numbers_have_three_significant_digits_or_are_whole(value, text):
  assert number(value) == text


@pytest.mark.parametrize(
  'seconds, text',
  [
    (0, '0 s'),
    (59.4, '59 s'),
    (59.6, '1.0 min'),
    (3587, '59.8 min'),
    (3599, '1.0 h'),
    (84_600, '23.5 h'),
    (86_399, '1.0 days'),
  ],
)
def test_times_are_in_the_unit_that_people_use(seconds, text):
  assert duration(seconds) == text
