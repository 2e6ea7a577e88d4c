import os
import subprocess
import sys
import threading

import pytest

from imagenet_synth.core import claims
from imagenet_synth.core.claims import claimed
from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, write_json

_ALONE = Worker()


@pytest.fixture
def other(tmp_path):
  """A function of what differs -> the claim of another process, which runs until the test ends."""
  process = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)

  def claim(**changes):
    content = dict(
      host='there',
      pid=process.pid,
      began=0,
      machine=claims._machine(),
      born=claims._born(process.pid),
      worker=[0, 1],
      jobs=['train'],
    )
    path = tmp_path / 'progress' / f'there.{process.pid}.claim'
    path.parent.mkdir(exist_ok=True)
    write_json(path, content | changes)
    return path

  yield claim
  process.communicate(b'\n')


def test_a_second_process_is_told_who_is_at_a_job(tmp_path, other):
  path = other()
  with pytest.raises(
    InputError, match=f'^{tmp_path}: process .* on there makes train, since .*; wait for it'
  ):
    with claimed(tmp_path, ['embed', 'train'], _ALONE):
      pytest.fail('both would make it')
  assert [left.name for left in path.parent.iterdir()] == [path.name]


def test_other_jobs_are_free(tmp_path, other):
  path = other()
  with claimed(tmp_path, ['embed'], _ALONE):
    (own,) = {*path.parent.iterdir()} - {path}
    assert read_json(own)['jobs'] == ['embed'] and own.name.endswith(f'.{os.getpid()}.claim')
  assert list(path.parent.iterdir()) == [path]
  with claimed(tmp_path, [], _ALONE):
    pass


@pytest.mark.parametrize(
  'mine, theirs, may',
  [((1, 4), (0, 4), True), ((0, 4), (0, 4), False), ((1, 4), (0, 8), False), ((1, 4), (0, 1), False)],
)
def test_workers_work_side_by_side(mine, theirs, may, tmp_path, other):
  other(worker=list(theirs))
  if may:
    with claimed(tmp_path, ['train'], Worker(*mine)):
      pass
  else:
    with pytest.raises(InputError, match='makes train'):
      with claimed(tmp_path, ['train'], Worker(*mine)):
        pass


def test_a_process_that_has_ended_and_was_not_asked_for_is_dead(tmp_path):
  process = subprocess.Popen([sys.executable, '-c', ''], stdout=subprocess.PIPE)
  born = claims._born(process.pid)
  assert born is not None
  process.stdout.read()
  while claims._born(process.pid) is not None:
    pass
  assert process.wait() == 0
  process.stdout.close()


@pytest.mark.parametrize('born', [None, 1])
def test_a_dead_process_claims_nothing(born, tmp_path, other):
  """Also where another process has its number by now."""
  path = other(born=born)
  with claimed(tmp_path, ['train'], _ALONE):
    assert not path.exists()


def test_a_process_of_another_machine_is_dead_when_it_writes_no_more(tmp_path, other, monkeypatch):
  monkeypatch.setattr(claims, '_DEAD_AFTER', 1.5)
  path = other(machine='another')
  with claimed(tmp_path, ['train'], _ALONE):
    assert not path.exists()
  other(machine='another')
  beats = threading.Timer(0.3, lambda: other(machine='another', beat=7))
  beats.start()
  with pytest.raises(InputError, match='makes train'):
    with claimed(tmp_path, ['train'], _ALONE):
      pass
  beats.join()


def test_a_claim_is_renewed(tmp_path, monkeypatch):
  monkeypatch.setattr(claims, '_BEAT', 0.01)
  with claimed(tmp_path, ['train'], _ALONE):
    (path,) = (tmp_path / 'progress').iterdir()
    while read_json(path)['beat'] < 2:
      pass
  assert not path.exists()


def test_temporary_files_of_dead_processes_are_deleted(tmp_path, other):
  path = other(worker=[1, 2])
  live = tmp_path / f'train/8/.a.tfrecord.{path.stem}.tmp'
  dead, foreign = tmp_path / 'train/.b.host.1.tmp', tmp_path / 'embed/.c.host.1.tmp'
  for file in (live, dead, foreign):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
  with claimed(tmp_path, ['train'], Worker(0, 2)):
    assert live.exists() and foreign.exists() and not dead.exists()
