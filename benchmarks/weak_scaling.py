"""What a second process costs: one process on core 0, then two on cores 0 and 1 with twice the work.

    python -m benchmarks.weak_scaling

Training: the quickstart's base, 64 images a process and step; the processes exchange their gradients. It is
timed from the first checkpoint to the last, so that starting and compiling don't count. Generation: workers
that don't talk, each timed from its first shard to its last. The two alternate; what is printed is the rate
of a process among two over that of one alone, with its spread: 1 would be perfect.

The file is also the config that the processes run.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

from ml_collections import ConfigDict

from configs import quickstart
from imagenet_synth.metrics.summary import mean_std

_NUM_STEPS, _BATCH_SIZE = 150, 64
_NUM_SHARDS, _SHARD_SIZE = 10, 50
_REPEATS = 3


def get_config(part):
  """part: 'before', the jobs that run alone; 'train-N' or 'generate-N', for N processes."""
  jobs = {
    name: section
    for name, section in quickstart.get_config().jobs.items()
    if name in ('embed_captions', 'embed_classes', 'pretrain_base')
  }
  jobs['pretrain_base'].update(num_steps=10, checkpoint_every=10)
  jobs['pretrain_base'].preview.update(prompts=('one',), columns=1, sampler=dict(num_steps=1))
  if part != 'before':
    name, num = part.split('-')
    jobs[part] = _train(jobs, int(num)) if name == 'train' else _generate(int(num))
  return ConfigDict(dict(jobs=jobs, order=tuple(jobs)))


def _train(jobs, num):
  section = ConfigDict(jobs['pretrain_base'])
  section.update(num_steps=2 * _NUM_STEPS, checkpoint_every=_NUM_STEPS, batch_size=num * _BATCH_SIZE)
  return section


def _generate(num):
  return dict(
    job='generate',
    text='embed_classes',
    dataset=quickstart.FIFTY,
    per_class=num * _NUM_SHARDS * _SHARD_SIZE // quickstart.NUM_CLASSES,
    shard_size=_SHARD_SIZE,
    batch_size=_SHARD_SIZE,
    stages=[dict(weights='pretrain_base', sampler=quickstart.BASE_SAMPLER)],
  )


def _run(workdir, part, num=1):
  """The processes of one part, each with a core of its own."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  processes = []
  for i in range(num):
    flags = ['--config', f'{__file__}:{part}', '--workdir', str(workdir), '--cpu_devices', '1']
    if num > 1 and part.startswith('train'):
      flags += [
        '--distributed',
        '--coordinator',
        f'localhost:{port}',
        '--num_processes',
        str(num),
        '--process_id',
        str(i),
      ]
    elif num > 1:
      flags += ['--worker', f'{i}/{num}']
    processes.append(
      subprocess.Popen(
        [sys.executable, '-m', 'imagenet_synth.main', *flags],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda core=i: os.sched_setaffinity(0, {core}),
      )
    )
  if any([process.wait() for process in processes]):
    raise SystemExit(f'{part} failed')


def _train_rate(workdir, num):
  """Steps per second; a step of N processes holds N times the images."""
  part = f'train-{num}'
  _run(workdir, part, num)
  first, last = (workdir / part / 'checkpoints' / str(step) / 'ema' for step in (_NUM_STEPS, 2 * _NUM_STEPS))
  return _NUM_STEPS / (last.stat().st_mtime - first.stat().st_mtime)


def _generate_rate(workdir, num):
  """Images per second and process."""
  part = f'generate-{num}'
  _run(workdir, part, num)
  shards = sorted((workdir / part / '8').glob('*.tfrecord'))
  rates = []
  for i in range(num):
    times = [shard.stat().st_mtime for shard in shards[i::num]]
    rates.append((len(times) - 1) * _SHARD_SIZE / (max(times) - min(times)))
  return sum(rates) / num


def main():
  with tempfile.TemporaryDirectory() as folder:
    before = pathlib.Path(folder) / 'before'
    _run(before, 'before')
    for what, rate, unit in (
      ('training', _train_rate, 'steps/s'),
      ('generation', _generate_rate, 'images/s'),
    ):
      ratios = []
      for repeat in range(_REPEATS):
        workdir = shutil.copytree(before, before.with_name(f'{what}-{repeat}'))
        one, two = rate(workdir, 1), rate(workdir, 2)
        ratios.append(two / one)
        print(f'{what}: alone {one:.2f}, among two {two:.2f} {unit} a process')
      mean, std, _ = mean_std(ratios)
      print(f'{what}: efficiency of two processes {mean:.3f} ± {std:.3f} ({_REPEATS} runs)')


if __name__ == '__main__':
  main()
