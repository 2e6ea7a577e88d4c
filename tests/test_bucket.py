"""The program with a bucket as its workdir: `python -m imagenet_synth.main`, killed and going on."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import fsspec
import pytest

from tests import bucket

_ROOT = pathlib.Path(__file__).parent.parent
_WORKDIR = 'gs://bucket/runs/tiny'
# where it is killed: when there is this object
_KILLS = [f'pretrain_base/checkpoints/{step}/commit_success.txt' for step in (10, 20, 30, 40, 50)] + [
  f'generate/8/train-{shard:05d}-of-00020.tfrecord' for shard in (1, 5, 9, 13, 17)
]


def _run(workdir, env):
  command = [sys.executable, '-m', 'imagenet_synth.main', '--config', 'tests/configs/tiny_base.py']
  small = ('pretrain_base.save_minutes=0.05', 'generate.per_class=4', 'generate.shard_size=2')
  flags = [f'--config.jobs.{setting}' for setting in small]
  command += ['--workdir', str(workdir), *flags]
  return subprocess.Popen(command, cwd=_ROOT, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_ten_times_in_a_bucket_it_ends_with_the_shards_of_a_local_run(tmp_path):
  env = {
    **os.environ,
    'XLA_FLAGS': '--xla_backend_optimization_level=0',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'XDG_CACHE_HOME': str(tmp_path / 'cache'),
  }
  local = _run(tmp_path / 'local', env)
  _, said = local.communicate()
  assert local.returncode == 0, said[-3000:]
  with bucket.running() as found_by:
    files = fsspec.filesystem('gs', endpoint_url=found_by['STORAGE_EMULATOR_HOST'], use_listings_cache=False)
    for wanted in _KILLS:
      process = _run(_WORKDIR, env | found_by)
      while not files.exists(f'{_WORKDIR}/{wanted}') and process.poll() is None:
        time.sleep(0.1)
      process.send_signal(signal.SIGKILL)
      _, said = process.communicate()
      assert process.returncode == -signal.SIGKILL, f'ended before {wanted} was there: {said[-3000:]}'
    last = _run(_WORKDIR, env | found_by)
    _, said = last.communicate()
    assert last.returncode == 0, said[-3000:]

    for pattern in ('generate/8/*.tfrecord', 'pretrain_base/metrics.jsonl', 'generate/manifest.json'):
      here = {path.name: path.read_bytes() for path in (tmp_path / 'local').glob(pattern)}
      there = {path: files.cat_file(path) for path in files.glob(f'{_WORKDIR}/{pattern}')}
      assert here and here == {path.rpartition('/')[2]: data for path, data in there.items()}, pattern
    # nothing is left of what kills have cut off
    left = files.find(_WORKDIR)
    assert not [path for path in left if path.endswith('.tmp') or '/resume/' in path]
