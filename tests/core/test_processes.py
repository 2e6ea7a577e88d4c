"""The parts that one process has; tests/test_processes.py starts several."""

import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from imagenet_synth.core import processes
from imagenet_synth.core.devices import batch_sharding, make_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import SaveClock, StopSignal


def test_joining_that_fails_is_one_line_that_names_the_flags():
  # JAX has started, after which no process can join another
  assert jax.device_count() == 8
  with pytest.raises(InputError, match='^--distributed: .*; give --coordinator HOST:PORT, ') as error:
    processes.initialize('localhost:1', 1, 0)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'env, local_device_ids',
  [
    # one process on each node, whatever else is there
    ({}, []),
    ({'SLURM_STEP_TASKS_PER_NODE': '1(x12)', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, []),
    # a task for each GPU, of which it sees all, or its own
    ({'SLURM_STEP_TASKS_PER_NODE': '8(x2),4'}, None),
    ({'SLURM_STEP_TASKS_PER_NODE': '8(x2),4', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, None),
    ({'SLURM_STEP_TASKS_PER_NODE': '8(x2),4', 'CUDA_VISIBLE_DEVICES': '0'}, []),
    # the user says which
    ({'SLURM_STEP_TASKS_PER_NODE': '1', 'JAX_LOCAL_DEVICE_IDS': '4,5'}, None),
  ],
)
def test_a_process_alone_on_its_node_takes_all_devices(monkeypatch, env, local_device_ids):
  joined = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *args: joined.append(args))
  for name, value in env.items():
    monkeypatch.setenv(name, value)
  processes.initialize(None, None, None)
  assert joined == [(None, None, None, local_device_ids)]


def test_jax_does_not_hide_gpus_of_a_slurm_node_from_its_only_task():
  slurm = {'JOB_ID': '1', 'STEP_NODELIST': 'localhost', 'NTASKS': '1', 'PROCID': '0', 'LOCALID': '0'}
  program = (
    'import jax; from imagenet_synth.core import processes; processes.initialize(None, None, None); '
    'print(jax.process_count(), jax.config.read("jax_cuda_visible_devices"))'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, **{f'SLURM_{name}': value for name, value in slurm.items()}},
    capture_output=True,
    text=True,
  )
  assert done.stdout == '1 all\n', done.stderr[-2000:]


def test_a_process_alone_is_the_first_and_waits_for_nobody():
  assert processes.is_first()
  processes.wait_for_all('the end of the test')


def test_a_process_alone_holds_all_rows_of_a_batch():
  mesh = make_mesh(fsdp=2, tensor=2)
  np.testing.assert_array_equal(processes.own_rows(batch_sharding(mesh), 12), np.arange(12))


def test_rows_are_put_on_the_devices_that_hold_them():
  sharding = batch_sharding(make_mesh(fsdp=2, tensor=2))
  rows = {'x': np.arange(24.0).reshape(8, 3), 'label': np.arange(8)}
  put = processes.put_rows(rows, sharding, 8)
  for name, array in put.items():
    assert array.sharding == sharding
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}
    np.testing.assert_array_equal(array, rows[name])
  # whole, and as they are
  assert processes.on_every_host(put) is put


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_within_and_does_what_it_did_before_behind(number):
  heard = []
  before = signal.signal(number, lambda number, frame: heard.append(number))
  try:
    with StopSignal() as stop:
      assert not stop.at(1)
      os.kill(os.getpid(), number)
      assert stop.at(2) and stop.at(3) and stop.number == number
    assert not heard
    os.kill(os.getpid(), number)
    assert heard == [number]
    # a new one knows nothing of the old signal
    with StopSignal() as stop:
      assert not stop.at(1)
  finally:
    signal.signal(number, before)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_handler_of_before_is_back_after_an_error(number):
  before = signal.getsignal(number)
  with pytest.raises(KeyError), StopSignal():
    assert signal.getsignal(number) != before
    raise KeyError
  assert signal.getsignal(number) == before


class _Time:
  """A clock that each step moves on."""

  def __init__(self, monkeypatch):
    self.now, self.waited = 1000.0, 0
    monkeypatch.setattr(processes.time, 'monotonic', lambda: self.now)
    monkeypatch.setattr(processes.jax, 'block_until_ready', self._wait)

  def _wait(self, results):
    self.waited += 1

  def saves(self, clock, seconds_of_steps, start=0):
    """The steps that are due, and when."""
    due = {}
    for step, seconds in enumerate(seconds_of_steps, start + 1):
      self.now += seconds
      if clock.due(step, None):
        due[step] = self.now
    return due


@pytest.mark.parametrize('first, pace', [(60, 0.25), (0.1, 0.1), (30, 30), (400, 2)])
def test_a_state_is_due_every_so_many_minutes_at_any_pace(first, pace, monkeypatch):
  """`first`: the first step, which is compiled."""
  times = _Time(monkeypatch)
  due = times.saves(SaveClock(10, 7), [first] + [pace] * int(7300 / pace), start=7)
  gaps = np.diff([1000, *due.values()])
  assert len(gaps) == 12 and gaps.min() > 600 - 1e-6
  # late by a step at most
  assert gaps.max() <= 600 + pace + 1e-6
  # the devices are waited for at few steps: where there are many, they work ahead
  assert times.waited <= 40 * len(due)


def test_a_state_that_is_due_after_each_step_is(monkeypatch):
  assert list(_Time(monkeypatch).saves(SaveClock(0, 2), [0.0] * 5, start=2)) == [3, 4, 5, 6, 7]


def test_a_pace_that_falls_makes_a_save_late_by_what_was_left_at_most_that_much_slower(monkeypatch):
  times = _Time(monkeypatch)
  due = times.saves(SaveClock(10, 0), [1] * 400 + [4] * 400)
  assert 600 <= next(iter(due.values())) - 1000 <= 800


def test_processes_whose_clocks_differ_save_the_same_steps(monkeypatch):
  """What the first one says is heard by the others at the same step."""
  said, paces = [], np.random.default_rng(0).uniform(0.5, 2, (2, 3000))
  monkeypatch.setattr(processes.jax, 'process_count', lambda: 2)

  def saves(of, exchange):
    monkeypatch.setattr(processes.multihost_utils, 'broadcast_one_to_all', exchange)
    return list(_Time(monkeypatch).saves(SaveClock(10, 0), paces[of] * (1 + of)))

  first = saves(0, lambda values: said.append(values) or values)
  heard = iter(said)
  assert saves(1, lambda values: next(heard)) == first and len(first) == 6
  assert next(heard, None) is None
