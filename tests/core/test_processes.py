"""The parts that one process has; tests/test_processes.py starts several."""

import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from imagenet_synth.core import processes
from imagenet_synth.core.devices import batch_sharding, make_mesh
from imagenet_synth.core.errors import InputError


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
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *args, **how: joined.append(args))
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


_WAITS = """
import sys
import jax
from imagenet_synth.core import processes
jax.config.update('jax_platforms', 'cpu')
index = int(sys.argv[1])
processes.initialize(f'localhost:{sys.argv[2]}', 2, index)
assert processes.as_first_has([index + 5]) == [5]
with processes.first_before_others('a file'):
  print('within', flush=True)
if index:
  processes.wait_for_all('the end')
else:
  try:
    processes.wait_for_all('what never comes', max_wait=1)
  except processes.Missing as missing:
    print(missing, flush=True)
  processes.wait_for_all('the end')
"""


def test_who_waits_in_vain_is_told_who_is_missing():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-c', _WAITS]
  both = [
    subprocess.Popen([*command, str(i), str(port)], stdout=subprocess.PIPE, text=True) for i in range(2)
  ]
  first, second = (process.communicate(timeout=200)[0] for process in both)
  # Gloo writes there, too, piece by piece, before what is ours and behind it
  said = [re.findall('within|what never comes.*may say why', text) for text in (first, second)]
  assert said == [
    ['within', 'what never comes: waited for process 1 of 2, which has not come; its log may say why'],
    ['within'],
  ]


_REFUSES = """
import sys
import jax
from imagenet_synth.core import processes
jax.config.update('jax_platforms', 'cpu')
processes.initialize(f'localhost:{sys.argv[2]}', 2, int(sys.argv[1]))
if sys.argv[1] in sys.argv[3]:
  processes.leave(2)
processes.wait_for_all('what the other does not come to')
"""


@pytest.mark.parametrize('which', ['0', pytest.param('1', marks=pytest.mark.slow), '01'])
def test_who_cannot_go_on_ends_with_the_code_that_says_so_and_all_end(which):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-c', _REFUSES]
  both = [
    subprocess.Popen([*command, str(i), str(port), which], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for i in range(2)
  ]
  errors = [process.communicate(timeout=200)[1].decode() for process in both]
  codes = [process.returncode for process in both]
  assert all(codes) and all(codes[int(index)] == 2 for index in which), errors
