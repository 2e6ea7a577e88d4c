"""What `imagenet_synth status` tells of runs that are going on, were killed, or are finished."""

import json
import subprocess
import sys
import time

import pytest

from imagenet_synth import pipeline, status
from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.progress import keeping_state, progress
from tests import small_pipeline

_KINDS = {'embed': 'embed', 'train': 'pretrain', 'train_more': 'pretrain', 'report': 'report'}


@pytest.fixture
def workdir(tmp_path):
  """A run whose first job is finished."""
  status.write_order(tmp_path, _KINDS)
  (tmp_path / 'embed').mkdir()
  (tmp_path / 'embed/job.json').write_text(json.dumps({'seconds': 75.2}))
  return tmp_path


def _state(workdir, name, age=0.0, worker=0, **more):
  state = dict(what=name, done=50, total=200, unit='img', rate=2.5, time=time.time() - age) | more
  (workdir / f'progress/{name}-{worker}.json').write_text(json.dumps(state))


def _lines(workdir):
  return status.describe(workdir).splitlines()


def test_what_is_done_running_and_left(workdir):
  _state(workdir, 'train')
  (workdir / 'train/samples').mkdir(parents=True)
  for step in (100, 200):
    (workdir / f'train/samples/{step:06d}.png').touch()
  assert _lines(workdir) == [
    'embed       embed     done in 1:15 minutes',
    'train       pretrain  running',
    '            train: 50 of 200 img, 2.5 img/s, 1:00 minutes left',
    'train_more  pretrain  left',
    'report      report    left',
    f'1 of 4 jobs done, in {workdir}',
    f'newest samples: {workdir}/train/samples/000200.png',
  ]


@pytest.mark.parametrize(
  'seconds, said',
  [(12.4, '12 s'), (59.6, '1:00 minutes'), (119.7, '2:00 minutes'), (3599.6, '1:00:00 hours')],
)
def test_times_are_rounded_before_they_are_told_in_minutes(workdir, seconds, said):
  (workdir / 'embed/job.json').write_text(json.dumps({'seconds': seconds}))
  assert _lines(workdir)[0].endswith(f'done in {said}')


def test_what_was_killed_can_go_on(workdir):
  _state(workdir, 'train', age=7260)
  lines = _lines(workdir)
  assert lines[1].split() == ['train', 'pretrain', 'begun']
  assert lines[2].strip() == 'train: 50 of 200 img, stopped 2:01:00 hours ago'
  assert lines[-1] == 'nothing is running; the command that was run goes on from what is saved'


def test_workers_are_told_apart_and_jobs_whose_names_begin_alike(workdir):
  _state(workdir, 'train', worker=0)
  _state(workdir, 'train', worker=3, age=600, rate=None)
  _state(workdir, 'train_more', worker=0, rate=None)
  lines = [line.strip() for line in _lines(workdir)]
  assert lines[2:4] == [
    'train: 50 of 200 img, 2.5 img/s, 1:00 minutes left',
    'train: 50 of 200 img, stopped 10:00 minutes ago',
  ]
  assert lines[5] == 'train_more: 50 of 200 img'


def test_at_the_end_the_report_is_named(workdir):
  for name in ('train', 'train_more', 'report'):
    (workdir / name).mkdir()
    (workdir / name / 'job.json').write_text(json.dumps({'seconds': 3}))
  (workdir / 'report/report.html').touch()
  assert _lines(workdir)[-2:] == [f'4 of 4 jobs done, in {workdir}', f'report: {workdir}/report/report.html']


def test_a_bar_keeps_its_state_while_a_job_runs(tmp_path):
  path = status.state_path(tmp_path, 'train', Worker(2, 3))
  with pytest.raises(ZeroDivisionError), keeping_state(path), progress(10, 'train', 'step', start=4) as bar:
    state = json.loads(path.read_text())
    assert {key: state[key] for key in ('what', 'done', 'total', 'unit')} == {
      'what': 'train',
      'done': 4,
      'total': 10,
      'unit': 'step',
    }
    assert abs(state['time'] - time.time()) < 10
    bar.update(1)
    raise ZeroDivisionError
  assert path.exists(), 'how far it was when it was killed'
  with keeping_state(path), progress(10, 'train'):
    pass
  assert not path.exists()


def test_a_run_leaves_what_status_wants(tmp_path, capsys):
  pipeline.run(small_pipeline.config(embed=small_pipeline.EMBED), tmp_path)
  assert [path.name for path in (tmp_path / 'progress').iterdir()] == ['order.json']
  (line, total) = _lines(tmp_path)
  assert line.startswith('embed  embed  done in ') and total == f'1 of 1 jobs done, in {tmp_path}'


def test_jobs_of_earlier_runs_stay_before_those_of_later_ones(tmp_path):
  status.write_order(tmp_path, {'a': 'embed', 'b': 'pretrain'})
  status.write_order(tmp_path, {'b': 'pretrain', 'c': 'generate'})
  assert [line.split()[0] for line in _lines(tmp_path)[:3]] == ['a', 'b', 'c']


def test_a_folder_in_which_nothing_was_run_is_named(tmp_path):
  with pytest.raises(InputError, match='is no workdir: nothing has been run in it'):
    status.describe(tmp_path)


@pytest.mark.parametrize(
  'arguments, message', [([], 'wants a folder'), (['nowhere'], 'nowhere is no workdir')]
)
def test_the_command_refuses_in_one_line(arguments, message):
  command = [sys.executable, '-m', 'imagenet_synth.main', 'status', *arguments]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith('error: status') and message in done.stderr
