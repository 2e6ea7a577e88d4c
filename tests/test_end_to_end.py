"""The program as a user runs it: `python -m imagenet_synth.main` in processes of its own."""

import collections
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from imagenet_synth.data.records import ShardSource
from tests.report.html_reader import assert_readable

_ROOT = pathlib.Path(__file__).parent.parent
# the networks are tiny: compiling is what takes the time, and processes that go on compile the same again
_CACHE = tempfile.TemporaryDirectory()
_ENV = {
  **os.environ,
  'XLA_FLAGS': '--xla_backend_optimization_level=0',
  'JAX_COMPILATION_CACHE_DIR': _CACHE.name,
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
}


def _command(config, workdir, *flags):
  return [
    sys.executable,
    '-m',
    'imagenet_synth.main',
    '--config',
    f'tests/configs/{config}.py',
    '--workdir',
    str(workdir),
    *flags,
  ]


def _run(*args):
  return subprocess.run(_command(*args), cwd=_ROOT, env=_ENV, capture_output=True, text=True)


def _read(path):
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('tiny')
  done = _run('tiny', path)
  assert done.returncode == 0, done.stderr[-3000:]
  return path


def test_every_job_is_done_and_says_so(workdir):
  done = _run('tiny', workdir, '--dry_run')
  lines = done.stdout.splitlines()
  total = lines[-1]
  jobs = [line for line in lines if re.search(r' done in \d+ s ', line)]
  assert len(jobs) == 22
  assert total == f'22 of 22 jobs done, 0 left, in {workdir}'


def test_shards_are_those_of_the_manifest_and_balanced(workdir):
  manifest = _read(workdir / 'generate/manifest.json')
  assert sorted(manifest['shards']) == ['16', '32', '8']
  for size, shards in manifest['shards'].items():
    paths = sorted((workdir / 'generate' / size).glob('*.tfrecord'))
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths} == shards
    source = ShardSource(paths)
    records = [source[i] for i in range(80)]
    assert {record['image'].shape for record in records} == {(int(size), int(size), 1)}
    assert collections.Counter((record['label'], record['index']) for record in records) == {
      (label, index): 1 for label in range(10) for index in range(8)
    }
    assert all(record['class_name'] == manifest['class_names'][record['label']] for record in records)


def test_a_better_setting_is_what_the_next_job_uses(workdir):
  sweep = _read(workdir / 'sweep_guidance/job.json')['result']
  best = max(sweep['rows'], key=lambda row: row['cas']['top_1']['mean'])
  assert sweep['best'] == {'guidance': best['guidance']}
  before = _read(workdir / 'sweep_base/job.json')['result']['best']
  assert sweep['settings'] == before | sweep['best']
  base = _read(workdir / 'generate/job.json')['result']['stages'][0]
  assert base['sampler'] == base['sampler'] | sweep['settings'] and base['run'] == 'finetune_base'


def test_the_report_needs_no_other_file_and_no_network(workdir):
  html = (workdir / 'report/report.html').read_text()
  assert_readable(html)
  # the names that SVG has for itself are no addresses
  assert 'http' not in re.sub(r'xmlns(:xlink)?="[^"]*"|base64,[^"]*', '', html)
  assert 'RANDOM weights' in html and 'classify_real at 32x32' in html
  text = (workdir / 'report/report.md').read_text()
  pictures = re.findall(r'\]\((figures/[^)]*)\)', text)
  assert len(pictures) == len(set(pictures)) == 14
  assert all((workdir / 'report' / name).read_bytes().startswith(b'\x89PNG') for name in pictures)
  assert re.findall(r'^## (.*)$', text, re.M) == _read(workdir / 'report/job.json')['result']['sections']


def test_changed_work_is_noticed(workdir, tmp_path):
  """A job whose input has been made anew is not taken for done."""
  copy = tmp_path / 'copy'
  subprocess.run(['cp', '-r', workdir, copy], check=True)
  record = _read(copy / 'select_base/job.json')
  record['result']['step'] = 2
  (copy / 'select_base/job.json').write_text(json.dumps(record))
  done = _run('tiny', copy)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == (
    f'error: {copy}/sweep_base was made from another select_base than the one there now; '
    '--redo sweep_base makes it anew'
  )


@pytest.mark.slow
def test_the_quickstart_runs_to_its_end(tmp_path):
  done = _run('tiny_quickstart', tmp_path)
  assert done.returncode == 0, done.stderr[-3000:]
  mixtures = _read(tmp_path / 'classify_ten/job.json')['result']['mixtures']
  assert [(of['num_real'], of['num_synthetic'], of['num_stand_in']) for of in mixtures.values()] == [
    (80, 0, 0),
    (0, 80, 0),
    (80, 3, 0),
    (80, 16, 0),
    (80, 66, 0),
    (80, 0, 1383),
  ]
  assert all('to_real' in of for name, of in mixtures.items() if name != 'real')


def _kill_when(path, *args):
  """Starts the command and sends SIGKILL as soon as `path` exists."""
  process = subprocess.Popen(_command(*args), cwd=_ROOT, env=_ENV, stderr=subprocess.DEVNULL)
  deadline = time.monotonic() + 120
  while not path.exists() and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.02)
  assert process.poll() is None, f'ended before {path} was there'
  process.send_signal(signal.SIGKILL)
  process.wait()


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_shards(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  assert _run('tiny_base', whole).returncode == 0
  _kill_when(killed / 'pretrain_base/checkpoints/20', 'tiny_base', killed)
  assert not (killed / 'pretrain_base/job.json').exists()
  _kill_when(killed / 'generate/8/train-00002-of-00020.tfrecord', 'tiny_base', killed)
  assert not (killed / 'generate/job.json').exists()
  kept = (killed / 'generate/8/train-00000-of-00020.tfrecord').stat().st_mtime_ns
  assert _run('tiny_base', killed).returncode == 0

  shards = [
    {path.name: path.read_bytes() for path in (folder / 'generate/8').glob('*.tfrecord')}
    for folder in (whole, killed)
  ]
  assert len(shards[0]) == 20 and shards[0] == shards[1]
  assert (killed / 'generate/8/train-00000-of-00020.tfrecord').stat().st_mtime_ns == kept
  logs = [(folder / 'pretrain_base/metrics.jsonl').read_text() for folder in (whole, killed)]
  assert logs[0] == logs[1]
  results = [_read(folder / 'pretrain_base/job.json')['result'] for folder in (whole, killed)]
  assert results[0] == results[1]


def _stop_in(job, log, *args):
  """Starts the command, sends SIGTERM soon after a job has begun; returns exit code and seconds."""
  with open(log, 'w') as stderr:
    process = subprocess.Popen(_command(*args), cwd=_ROOT, env=_ENV, stderr=stderr)
  deadline = time.monotonic() + 300
  while f'] {job}\n' not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.02)
  # the shortest job takes a tenth of a second
  time.sleep(0.05)
  assert process.poll() is None, f'ended before {job}: {log.read_text()[-2000:]}'
  start = time.monotonic()
  process.send_signal(signal.SIGTERM)
  return process.wait(timeout=120), time.monotonic() - start


@pytest.mark.slow
def test_told_to_stop_in_each_kind_of_job_it_goes_on_to_the_same_results(tmp_path):
  whole, stopped, log = tmp_path / 'whole', tmp_path / 'stopped', tmp_path / 'log'
  done = _run('tiny_kinds', whole)
  assert done.returncode == 0, done.stderr[-3000:]
  jobs = [
    path.parent.name for path in sorted(whole.glob('*/job.json'), key=lambda path: path.stat().st_mtime)
  ]
  seconds = {}
  for job in jobs:
    code, seconds[job] = _stop_in(job, log, 'tiny_kinds', stopped)
    # the last one may be done by then
    stopped_there = code == 143 and 'told to stop' in log.read_text()
    assert stopped_there or (job == jobs[-1] and code == 0), log.read_text()[-3000:]
  # with ten processes to a core it takes up to 18 s
  assert len(seconds) == 14 and max(seconds.values()) < 30, seconds
  done = _run('tiny_kinds', stopped)
  assert done.returncode == 0, done.stderr[-3000:]
  results = [{job: _read(folder / job / 'job.json')['result'] for job in jobs} for folder in (whole, stopped)]
  assert results[0] == results[1]
  assert not list(stopped.glob('*/**/*.partial')) and not (stopped / 'generate/partial').exists()
