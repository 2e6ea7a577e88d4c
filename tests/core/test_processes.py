"""The parts that one process has; tests/test_processes.py starts several."""

import os
import signal

import jax
import numpy as np
import pytest

from imagenet_synth.core import processes
from imagenet_synth.core.devices import batch_sharding, make_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import StopSignal


def test_joining_that_fails_is_one_line_that_names_the_flags():
  # JAX has started, after which no process can join another
  assert jax.device_count() == 8
  with pytest.raises(InputError, match='^--distributed: .*; give --coordinator HOST:PORT, ') as error:
    processes.initialize('localhost:1', 1, 0)
  assert '\n' not in str(error.value)


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
