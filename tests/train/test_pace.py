"""What is told of the speed of steps, by a clock that the test sets."""

import types

import jax
import jax.numpy as jnp
import pytest

from imagenet_synth.core.accelerators import ACCELERATORS
from imagenet_synth.train import pace as pace_module
from imagenet_synth.train.pace import Pace


@pytest.fixture
def clock(monkeypatch):
  """The time, which passes when the test says so."""
  now = types.SimpleNamespace(seconds=100.0)
  monkeypatch.setattr(pace_module.time, 'perf_counter', lambda: now.seconds)
  return now


def _batches(clock, seconds):
  for i in range(4):
    clock.seconds += seconds
    yield i


def test_steps_are_told_with_the_share_of_their_time_that_they_waited_for_input(clock):
  pace, told = Pace(batch_size=32, num_devices=8), {}
  for step, _ in enumerate(pace.waiting_for(_batches(clock, 0.5)), 1):
    clock.seconds += 1.5
    if step in (1, 3, 4):
      told[step] = pace.until(step)
  for speed in told.values():
    assert speed == pytest.approx(
      dict(step_seconds=2.0, images_per_second=16.0, input_share=0.25, teraflops=0.0), abs=1e-9
    )


def test_what_comes_between_two_steps_does_not_count_once_it_is_begun_anew(clock):
  pace = Pace(batch_size=4, num_devices=8)
  clock.seconds += 60
  pace.restart(10)
  assert pace.until(10) == {}
  clock.seconds += 3
  assert pace.until(16)['step_seconds'] == 0.5


def test_operations_and_memory_are_those_of_the_devices(clock, monkeypatch):
  kind, peak = 'TPU v5 lite', 197e12
  stats = [{'peak_bytes_in_use': 3e9}, {'peak_bytes_in_use': 5e9}]
  local = [types.SimpleNamespace(device_kind=kind, memory_stats=lambda of=of: of) for of in stats]
  pace = Pace(batch_size=8, num_devices=4)
  # of 2 * 8 * 16 * 32 operations
  pace.know_program(jax.jit(lambda x, y: x @ y), jnp.zeros((8, 16)), jnp.zeros((16, 32)))
  monkeypatch.setattr(jax, 'devices', lambda: [*local, *local])
  monkeypatch.setattr(jax, 'local_devices', lambda: local)
  clock.seconds += 2
  speed = pace.until(10)
  assert speed['teraflops'] == pytest.approx(8192 * 10 / 2 / 4 / 1e12)
  assert speed['peak_share'] == pytest.approx(8192 * 10 / 2 / 4 / peak)
  assert speed['peak_gigabytes'] == 5.0 and ACCELERATORS['v5e'].teraflops == peak / 1e12
