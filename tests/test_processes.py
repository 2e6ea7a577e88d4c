"""Runs of several real processes, which talk over the loopback interface."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import SingleDeviceSharding

from imagenet_synth.data.records import ShardSource

_ROOT = pathlib.Path(__file__).parent.parent
_ENV = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0', 'JAX_PLATFORMS': 'cpu'}
_NUM_DEVICES = 4


def _start(workdir, num_processes, config='tiny_train.py', num_devices=_NUM_DEVICES):
  """The processes of one run, of `num_devices` devices together."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  command = [
    sys.executable,
    '-m',
    'imagenet_synth.main',
    '--config',
    f'tests/configs/{config}',
    '--workdir',
    str(workdir),
    '--cpu_devices',
    str(num_devices // num_processes),
  ]
  if num_processes > 1:
    command += ['--distributed', '--coordinator', f'localhost:{port}', '--num_processes', str(num_processes)]
  processes = []
  for i in range(num_processes):
    own = ['--process_id', str(i)] if num_processes > 1 else []
    with open(workdir.with_name(f'{workdir.name}-{i}.log'), 'a') as log:
      processes.append(subprocess.Popen(command + own, cwd=_ROOT, env=_ENV, stderr=log))
  return processes


def _finish(processes, workdir):
  codes = [process.wait(timeout=240) for process in processes]
  logs = [workdir.with_name(f'{workdir.name}-{i}.log').read_text()[-2000:] for i in range(len(processes))]
  return codes, '\n'.join(logs)


def _run(workdir, num_processes, config='tiny_train.py', num_devices=_NUM_DEVICES):
  codes, logs = _finish(_start(workdir, num_processes, config, num_devices), workdir)
  assert codes == [0] * num_processes, logs


@pytest.fixture(scope='module')
def embedded(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('processes') / 'embedded'
  workdir.mkdir()
  _run(workdir, 1, 'tiny_train.py:embed')
  return workdir


@pytest.fixture(scope='module')
def alone(embedded):
  workdir = shutil.copytree(embedded, embedded.with_name('alone'))
  _run(workdir, 1)
  return workdir


def _losses(workdir):
  lines = (workdir / 'pretrain_base/metrics.jsonl').read_text().splitlines()
  return {line['step']: line['loss'] for line in map(json.loads, lines)}


def _weights(workdir):
  path = workdir / 'pretrain_base/checkpoints/40/ema'
  here = SingleDeviceSharding(jax.devices()[0])
  with ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.metadata(path).item_metadata.tree
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), tree)
    weights = checkpointer.restore(path, like)
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights)])


def _assert_same_run(workdir, alone):
  # the step at which it was stopped is in the log, too
  losses, expected = _losses(workdir), _losses(alone)
  assert {step: losses[step] for step in expected} == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(_weights(workdir), _weights(alone), atol=5e-5)
  result = json.loads((workdir / 'pretrain_base/job.json').read_text())['result']
  assert result['step'] == 40 and result['checkpoints'] == [10, 20, 30, 40]


def _wait_for(path, processes):
  deadline = time.monotonic() + 180
  while not path.exists() and time.monotonic() < deadline:
    assert all(process.poll() is None for process in processes), 'ended early'
    time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_train_as_one(embedded, alone):
  workdir = shutil.copytree(embedded, embedded.with_name('two'))
  _run(workdir, 2)
  _assert_same_run(workdir, alone)


@pytest.mark.slow
def test_stopped_and_resumed_by_another_number_of_processes(embedded, alone):
  """SIGTERM to two processes; the rest is done by one."""
  workdir = shutil.copytree(embedded, embedded.with_name('stopped'))
  processes = _start(workdir, 2)
  _wait_for(workdir / 'pretrain_base/checkpoints/10', processes)
  for process in processes:
    process.send_signal(signal.SIGTERM)
  codes, logs = _finish(processes, workdir)
  assert codes == [143, 143], logs
  assert 'told to stop; step' in logs and 'of 40 is saved' in logs
  _run(workdir, 1)
  _assert_same_run(workdir, alone)


@pytest.mark.slow
@pytest.mark.parametrize('first, then', [(2, 4), (4, 2), (4, 1), (1, 4)])
def test_killed_and_resumed_by_another_number_of_processes(embedded, alone, first, then):
  workdir = shutil.copytree(embedded, embedded.with_name(f'killed-{first}-{then}'))
  processes = _start(workdir, first)
  _wait_for(workdir / 'pretrain_base/checkpoints/20', processes)
  processes[-1].kill()
  time.sleep(1)
  for process in processes:
    process.kill()
  _finish(processes, workdir)
  _run(workdir, then)
  _assert_same_run(workdir, alone)


def _pixels(workdir):
  source = ShardSource(sorted((workdir / 'generate/8').glob('*.tfrecord')))
  return {
    (source[i]['label'], source[i]['index']): source[i]['image'].astype(int) for i in range(len(source))
  }


@pytest.mark.slow
@pytest.mark.parametrize('num_processes', [2, 4])
def test_several_processes_draw_the_pixels_of_one(alone, num_processes):
  runs = []
  for number in (1, num_processes):
    workdir = shutil.copytree(alone, alone.with_name(f'drawn-{num_processes}-{number}'))
    _run(workdir, 1, 'tiny_train.py:classes')
    _run(workdir, number, 'tiny_train.py:generate')
    runs.append(_pixels(workdir))
  _assert_same_pixels(*runs)


def _assert_same_pixels(a, b):
  assert a.keys() == b.keys() and len(a) == 40
  differences = np.abs([a[key] - b[key] for key in a])
  assert differences.max() <= 1 and np.mean(differences > 0) < 1e-3


@pytest.mark.slow
def test_one_process_of_eight_devices_draws_the_pixels_of_one_device(alone):
  runs = []
  for num_devices in (1, 8):
    workdir = shutil.copytree(alone, alone.with_name(f'drawn-by-{num_devices}-devices'))
    _run(workdir, 1, 'tiny_train.py:classes')
    (process,) = _start(workdir, 1, 'tiny_train.py:generate', num_devices=num_devices)
    assert _finish([process], workdir)[0] == [0]
    runs.append(_pixels(workdir))
  _assert_same_pixels(*runs)


@pytest.fixture(scope='module')
def each_kind_alone(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('each-kind') / 'alone'
  workdir.mkdir()
  _run(workdir, 1, 'each_kind.py', num_devices=2)
  return workdir


def _assert_close(found, expected, where):
  """Two results are the same, numbers to rounding; hashes of what was rounded otherwise don't count."""
  if isinstance(expected, dict):
    assert found.keys() == expected.keys(), where
    for key in expected:
      if 'hash' not in key and key not in ('shards', 'extractor'):
        _assert_close(found[key], expected[key], f'{where}.{key}')
  elif isinstance(expected, list):
    assert len(found) == len(expected), where
    for i, pair in enumerate(zip(found, expected)):
      _assert_close(*pair, f'{where}[{i}]')
  elif isinstance(expected, float):
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), where
  else:
    assert found == expected, where


def _assert_same_results(workdir, alone):
  jobs = sorted(path.parent.name for path in alone.glob('*/job.json'))
  assert len(jobs) == 13
  for job in jobs:
    found, expected = (json.loads((of / job / 'job.json').read_text())['result'] for of in (workdir, alone))
    _assert_close(found, expected, job)
  # nothing is left of what processes hand to each other
  assert not [*workdir.glob('*/blocks_*'), *workdir.glob('references/*.blocks'), *workdir.rglob('.*.tmp')]


@pytest.mark.slow
def test_two_processes_do_each_kind_of_job_with_the_results_of_one(each_kind_alone):
  workdir = each_kind_alone.with_name('together')
  workdir.mkdir()
  _run(workdir, 2, 'each_kind.py', num_devices=2)
  _assert_same_results(workdir, each_kind_alone)


@pytest.mark.slow
@pytest.mark.parametrize('killed_at, then', [('sweep/trials', 1), ('generate/8', 2), ('classify/runs', 1)])
def test_two_processes_that_are_killed_at_any_kind_of_job_are_gone_on_with(killed_at, then, each_kind_alone):
  workdir = each_kind_alone.with_name(f'killed-{killed_at.split("/")[0]}-{then}')
  workdir.mkdir()
  processes = _start(workdir, 2, 'each_kind.py', num_devices=2)
  _wait_for(workdir / killed_at, processes)
  for process in processes:
    process.kill()
  _finish(processes, workdir)
  _run(workdir, then, 'each_kind.py', num_devices=2)
  _assert_same_results(workdir, each_kind_alone)


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(alone):
  """Each kill comes at a random time after the first shard that the process can have made."""
  whole, killed = (shutil.copytree(alone, alone.with_name(name)) for name in ('whole', 'killed'))
  for workdir in (whole, killed):
    _run(workdir, 1, 'tiny_train.py:classes')
  config = 'tiny_train.py:generate_slowly'
  _run(whole, 1, config)
  rng = np.random.default_rng(0)
  num_shards, kills = [], 0
  while kills < 20:
    (process,) = _start(killed, 1, config)
    shards = killed / 'generate_slowly/8'
    before = len(list(shards.glob('*.tfrecord')))
    deadline = time.monotonic() + 120
    while (
      len(list(shards.glob('*.tfrecord'))) == before
      and process.poll() is None
      and time.monotonic() < deadline
    ):
      time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    assert process.poll() is None, 'ended before it could be killed'
    process.kill()
    process.wait()
    kills += 1
    num_shards.append(len(list(shards.glob('*.tfrecord'))))
  _run(killed, 1, config)
  assert 0 < num_shards[0] <= num_shards[-1] < 200
  assert _files(killed) == _files(whole)
  source = ShardSource(sorted((killed / 'generate_slowly/8').glob('*.tfrecord')))
  held = [(source[i]['label'], source[i]['index']) for i in range(len(source))]
  assert len(held) == len(set(held)) == 400


def _files(workdir):
  return {
    path.name: path.read_bytes()
    for path in (workdir / 'generate_slowly/8').iterdir()
    if '.tmp' not in path.name
  }
