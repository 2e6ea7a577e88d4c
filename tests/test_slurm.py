"""launch/slurm.sbatch under a real SLURM: a controller and two nodes, all on the loopback interface.

Needs slurmctld, slurmd and SLURM's commands (`apt-get install slurmctld slurmd slurm-client`), which may be
unconfigured: the cluster here has a configuration of its own, without munge. Its GPUs are empty files, so
that the script's --gpus-per-node is kept, and the program computes on CPUs.
"""

import getpass
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from imagenet_synth.data.records import ShardSource

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not shutil.which('slurmctld'), reason='SLURM is not installed'),
]

_ROOT = pathlib.Path(__file__).parent.parent
# of a job, from its submission to its end
_LIMIT_SECONDS = 1800
_ENDED = ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT')
_CONFIGURATION = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=127.0.0.1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={port_1} CPUs=64 Gres=gpu:8
NodeName=127.0.0.2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={port_2} CPUs=64 Gres=gpu:8
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class _Cluster:
  """SLURM's commands, and what it says of a job."""

  def __init__(self, folder):
    self.folder = folder
    self.env = {
      **os.environ,
      'SLURM_CONF': str(folder / 'slurm.conf'),
      'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}',
      'PYTHONPATH': str(_ROOT),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_backend_optimization_level=0',
    }

  def call(self, *command, env=None):
    done = subprocess.run(command, cwd=_ROOT, env=env or self.env, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout

  def submit(self, *flags, args, stub=None):
    """Returns the number of a job that runs `python -m imagenet_synth.main` with `args`.

    Its output is in NUMBER.log or, of an array, NUMBER_TASK.log. A stub is a script that is run as python.
    """
    log = self.folder / ('%A_%a.log' if '--array' in flags else '%j.log')
    env = dict(self.env)
    if stub is not None:
      bin_dir = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
      (bin_dir / 'python').write_text(f'#!/bin/bash\n{stub}\n')
      (bin_dir / 'python').chmod(0o755)
      env['PATH'] = f'{bin_dir}:{env["PATH"]}'
    command = ['sbatch', '--parsable', '--output', str(log), *flags, 'launch/slurm.sbatch', *args]
    return self.call(*command, env=env).strip()

  def jobs(self, number):
    """Returns a dict of SLURM's fields for the job, or for each task of an array."""
    lines = self.call('scontrol', '--oneliner', 'show', 'job', number).splitlines()
    return [dict(re.findall(r'(\w+)=(\S*)', line)) for line in lines]

  def wait(self, number, states):
    """Returns the fields of all tasks when each of them is in one of the states."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    while True:
      jobs = self.jobs(number)
      if all(job['JobState'] in states for job in jobs):
        return jobs
      assert time.monotonic() < deadline, (jobs, self.logs(number))
      time.sleep(0.2)

  def run(self, *flags, args, stub=None):
    """Returns the fields of a job's tasks, and their output, when all of them have ended."""
    number = self.submit(*flags, args=args, stub=stub)
    return self.wait(number, _ENDED), self.logs(number)

  def logs(self, number):
    return '\n'.join(path.read_text() for path in sorted(self.folder.glob(f'{number}*.log')))


def _args(config, workdir):
  """The program's flags, for a base that learns for 12 steps on a device for each node."""
  args = ['--config', f'tests/configs/{config}', '--workdir', str(workdir), '--cpu_devices', '1']
  if 'classes' not in config:
    args += ['--config.jobs.pretrain_base.num_steps=12', '--config.jobs.pretrain_base.checkpoint_every=4']
  return args


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  folder = tmp_path_factory.mktemp('slurm')
  for name in ('state', 'gpus'):
    (folder / name).mkdir()
  for i in range(8):
    (folder / 'gpus' / f'gpu{i}').touch()
  port = 20000 + os.getpid() % 10000
  (folder / 'slurm.conf').write_text(
    _CONFIGURATION.format(folder=folder, user=getpass.getuser(), port=port, port_1=port + 1, port_2=port + 2)
  )
  (folder / 'gres.conf').write_text(f'NodeName=127.0.0.[1-2] Name=gpu File={folder}/gpus/gpu[0-7]\n')
  slurm = _Cluster(folder)
  daemons = []
  for command in (['slurmctld', '-D'], *(['slurmd', '-D', '-N', f'127.0.0.{i}'] for i in (1, 2))):
    with open(folder / f'{"-".join(command)}.out', 'w') as log:
      daemons.append(subprocess.Popen(command, env=slurm.env, stdout=log, stderr=log))
  deadline = time.monotonic() + 60
  while True:
    done = subprocess.run(
      ['sinfo', '--noheader', '--format=%T'], env=slurm.env, capture_output=True, text=True
    )
    if done.stdout.split() == ['idle']:
      break
    logs = '\n'.join(path.read_text()[-2000:] for path in folder.glob('*.out'))
    assert time.monotonic() < deadline, (done, logs)
    time.sleep(0.5)
  yield slurm
  # its tasks first: a daemon that ends leaves them
  subprocess.run(['scancel', '--user', getpass.getuser()], env=slurm.env)
  time.sleep(1)
  for daemon in reversed(daemons):
    daemon.terminate()
    daemon.wait(timeout=30)


@pytest.fixture(scope='module')
def embedded(cluster, tmp_path_factory):
  """A workdir with the embeddings of captions and classes, which a job on one node has made."""
  workdir = tmp_path_factory.mktemp('runs') / 'embedded'
  (job,), log = cluster.run('--nodes', '1', args=_args('tiny_train.py:classes', workdir))
  assert job['JobState'] == 'COMPLETED', log
  return workdir


@pytest.fixture(scope='module')
def trained(cluster, embedded):
  """A workdir with a base that two nodes have trained together, and the log."""
  workdir = shutil.copytree(embedded, embedded.with_name('trained'))
  (job,), log = cluster.run('--nodes', '2', args=_args('tiny_train.py', workdir))
  assert job['JobState'] == 'COMPLETED', log
  return workdir


def _losses(workdir):
  lines = (workdir / 'pretrain_base/metrics.jsonl').read_text().splitlines()
  return {line['step']: line['loss'] for line in map(json.loads, lines)}


def test_two_nodes_train_and_an_array_generates(cluster, trained):
  # workers 0, 1 and 2 of 3
  jobs, log = cluster.run('--nodes', '1', '--array', '4-8:2', args=_args('tiny_train.py:generate', trained))
  assert [job['JobState'] for job in jobs] == ['COMPLETED'] * 3, log
  assert (trained / 'generate/job.json').exists(), log
  source = ShardSource(sorted((trained / 'generate/8').glob('*.tfrecord')))
  held = {(source[i]['label'], source[i]['index']) for i in range(len(source))}
  assert len(source) == len(held) == 40


def test_a_stopped_job_is_requeued_and_ends_as_if_it_had_not_been(cluster, embedded, trained):
  workdir = shutil.copytree(embedded, embedded.with_name('stopped'))
  number = cluster.submit('--nodes', '2', args=_args('tiny_train.py', workdir))
  deadline = time.monotonic() + _LIMIT_SECONDS
  while not (workdir / 'pretrain_base/checkpoints/4').exists():
    assert time.monotonic() < deadline, cluster.logs(number)
    time.sleep(0.05)
  # to the program only, as --signal=TERM@120 does: it is the script that puts the job back
  cluster.call('scancel', '--signal=TERM', number)
  (job,) = cluster.wait(number, _ENDED)
  log = cluster.logs(number)
  assert (job['JobState'], job['Restarts']) == ('COMPLETED', '1'), log
  assert 'told to stop; step' in log and 'of 12 is saved' in log
  losses, expected = _losses(workdir), _losses(trained)
  assert {step: losses[step] for step in expected} == pytest.approx(expected, rel=1e-5)


def test_bad_input_and_cancelled_jobs_stay_out_of_the_queue(cluster, embedded):
  (job,), log = cluster.run('--nodes', '1', args=_args('tiny_train.py:nonsense', embedded))
  assert (job['JobState'], job['ExitCode'], job['Restarts']) == ('FAILED', '2:0', '0'), log
  assert len(re.findall('^error: --config', log, re.MULTILINE)) == 1
  number = cluster.submit(
    '--nodes', '1', args=_args('tiny_train.py', shutil.copytree(embedded, embedded.with_name('cancelled')))
  )
  cluster.wait(number, ('RUNNING',))
  time.sleep(2)
  cluster.call('scancel', number)
  (job,) = cluster.wait(number, (*_ENDED, 'PENDING'))
  assert (job['JobState'], job['Restarts']) == ('CANCELLED', '0'), cluster.logs(number)


def test_a_job_whose_time_is_up_is_told_before_and_requeued(cluster, tmp_path):
  """The stub ends by SIGTERM as the program does; started again, it is done at once."""
  wait = 'trap "exit 143" TERM; while :; do sleep 1; done'
  stub = f'[ -e {tmp_path}/ran ] && exit; touch {tmp_path}/ran; {wait}'
  (job,), log = cluster.run('--nodes', '1', '--time', '1', '--signal', 'TERM@30', args=(), stub=stub)
  assert (job['JobState'], job['Restarts']) == ('COMPLETED', '1'), log
