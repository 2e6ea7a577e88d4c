"""Signals, the clock, and what both lead to in one process; tests/test_processes.py stops several."""

import gc
import os
import signal
import sys
import time

import numpy as np
import pytest

from imagenet_synth.core import stopping
from imagenet_synth.core.stopping import Due, SaveClock, Stopped, StopSignal, keeping, stop_when_told


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_within_and_does_what_it_did_before_behind(number):
  heard = []
  before = signal.signal(number, lambda number, frame: heard.append(number))
  try:
    with pytest.raises(Stopped) as stopped, StopSignal() as stop:
      assert not stop.came
      os.kill(os.getpid(), number)
      assert stop.came and stop.number == number
      # whoever does not heed it is ended behind
    assert stopped.value.signal == number and not heard
    os.kill(os.getpid(), number)
    assert heard == [number]
    # a new one knows nothing of the old signal
    with StopSignal() as stop:
      assert not stop.came
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
    monkeypatch.setattr(stopping.time, 'monotonic', lambda: self.now)
    monkeypatch.setattr(stopping.jax, 'block_until_ready', self._wait)

  def _wait(self, results):
    self.waited += 1

  def saves(self, clock, seconds_of_steps, start=0):
    """The steps that are due, and when."""
    due = {}
    for step, seconds in enumerate(seconds_of_steps, start + 1):
      self.now += seconds
      if clock.due(step, None).save:
        due[step] = self.now
    return due


@pytest.mark.parametrize('first, pace', [(60, 0.25), (0.1, 0.1), (30, 30), (400, 2)])
def test_a_state_is_due_every_so_many_minutes_at_any_pace(first, pace, monkeypatch):
  """`first`: the first step, which is compiled."""
  times = _Time(monkeypatch)
  due = times.saves(SaveClock(10, 7, StopSignal()), [first] + [pace] * int(7300 / pace), start=7)
  gaps = np.diff([1000, *due.values()])
  assert len(gaps) == 12 and gaps.min() > 600 - 1e-6
  # late by a step at most
  assert gaps.max() <= 600 + pace + 1e-6
  # the devices are waited for at few steps: where there are many, they work ahead
  assert times.waited <= 40 * len(due)


def test_a_state_that_is_due_after_each_step_is(monkeypatch):
  assert list(_Time(monkeypatch).saves(SaveClock(0, 2, StopSignal()), [0.0] * 5, start=2)) == [3, 4, 5, 6, 7]


def test_a_pace_that_falls_makes_a_save_late_by_what_was_left_at_most_that_much_slower(monkeypatch):
  times = _Time(monkeypatch)
  due = times.saves(SaveClock(10, 0, StopSignal()), [1] * 400 + [4] * 400)
  assert 600 <= next(iter(due.values())) - 1000 <= 800


def _meeting_of_two(monkeypatch, paces, told=None):
  """What each of two processes finds due at its steps, given the seconds of these, and how often they meet.

  told: the step at which the first one is told to stop.
  """
  said = []
  monkeypatch.setattr(stopping.jax, 'process_count', lambda: 2)

  def steps_of(process, exchange):
    monkeypatch.setattr(stopping.multihost_utils, 'process_allgather', exchange)
    times, signal_ = _Time(monkeypatch), StopSignal()
    clock, due = SaveClock(10, 0, signal_), {}
    for step, seconds in enumerate(paces[process], 1):
      times.now += seconds
      signal_.came = signal_.came or (process == 0 and step == told)
      due[step] = clock.due(step, None)
      if due[step].stop:
        break
    return due

  first = steps_of(0, lambda own: said.append(own) or np.stack([own, np.zeros_like(own)]))
  heard = iter(said)
  return first, steps_of(1, lambda own: np.stack([next(heard), own])), len(said)


def test_processes_whose_clocks_differ_save_the_same_steps(monkeypatch):
  """What the first one says is heard by the others at the same step."""
  paces = np.random.default_rng(0).uniform(0.5, 2, (2, 3000)) * [[1], [2]]
  first, second, num_meetings = _meeting_of_two(monkeypatch, paces)
  assert first == second and sum(due.save for due in first.values()) == 6
  # one every few seconds, so that a process that is told to stop is heard
  assert paces[0].sum() / 10 < num_meetings < paces[0].sum() / 4


def test_all_processes_stop_at_one_step_soon_after_one_is_told(monkeypatch):
  paces = np.full((2, 1000), 0.1)
  first, second, _ = _meeting_of_two(monkeypatch, paces, told=500)
  last = max(first)
  assert first == second and first[last] == Due(save=True, stop=True) and 500 <= last <= 550
  assert not any(due.stop for due in list(first.values())[:-1])


@pytest.fixture
def own_hook(monkeypatch):
  """What `stop_when_told` does to the hook ends with the test."""
  monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)


def test_a_program_that_does_not_listen_is_ended_where_it_is(own_hook):
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    for number in before:
      stop_when_told()
      with pytest.raises(Stopped, match='^told to stop; the same command goes on') as stopped:
        os.kill(os.getpid(), number)
        time.sleep(10)
      assert stopped.value.signal == number
      # told once more, it ends as it has begun to
      os.kill(os.getpid(), signal.SIGTERM)
    stop_when_told(after_minutes=0.1 / 60)
    start = time.monotonic()
    with pytest.raises(Stopped) as stopped:
      time.sleep(10)
    assert stopped.value.signal == signal.SIGTERM and time.monotonic() - start < 5
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_garbage_is_collected_is_not_lost(number, own_hook):
  """What a callback of the collector raises, Python drops."""
  before, came = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}, []

  def told_within(phase, info):
    if not came:
      came.append(phase)
      os.kill(os.getpid(), number)
      # here the handler runs
      time.sleep(0)

  gc.callbacks.append(told_within)
  try:
    stop_when_told()
    with pytest.raises(Stopped) as stopped:
      gc.collect()
      time.sleep(10)
    assert came == ['start'] and stopped.value.signal == number
  finally:
    gc.callbacks.remove(told_within)
    for of, handler in before.items():
      signal.signal(of, handler)


def test_a_loop_saves_by_the_clock_and_when_it_is_told_to_stop(monkeypatch):
  times, saved = _Time(monkeypatch), []
  with (
    pytest.raises(Stopped, match='^drawing: told to stop; the same command') as stopped,
    keeping(lambda: saved.append(number), 'drawing', minutes=1) as after_batch,
  ):
    for number in range(1, 20):
      times.now += 25
      if number == 9:
        os.kill(os.getpid(), signal.SIGINT)
      after_batch()
  assert saved == [3, 6, 9] and stopped.value.signal == signal.SIGINT


def test_a_loop_that_ends_in_time_saves_nothing():
  with keeping(pytest.fail, 'drawing') as after_batch:
    after_batch()
