"""Launch scripts, as far as they can be tried without a cluster: what they would run."""

import os
import pathlib
import re
import subprocess

import pytest
import yaml

_ROOT = pathlib.Path(__file__).parent.parent
_LAUNCH = _ROOT / 'launch'
_YAML = _LAUNCH / 'gke_jobset.yaml'
_MAIN = 'python -m imagenet_synth.main'


def _dry(script, *args, **env):
  done = subprocess.run(
    ['bash', _LAUNCH / script, *args],
    env={**os.environ, 'DRY': '1', **env},
    capture_output=True,
    text=True,
    check=True,
  )
  return [line.rstrip() for line in done.stdout.splitlines()]


def _with_stubs(folder, stubs, script, *args, **env):
  """What a launch script does where some programs are stubs: {name: shell script}."""
  for name, body in stubs.items():
    (folder / name).write_text(f'#!/bin/sh\n{body}\n')
    (folder / name).chmod(0o755)
  return subprocess.run(
    ['bash', _LAUNCH / script, *args],
    env={'PATH': f'{folder}:{os.environ["PATH"]}', **env},
    capture_output=True,
    text=True,
  )


def test_a_gpu_node_runs_one_process():
  assert _dry('gpu_node.sh', '--config', 'c.py') == [f'{_MAIN} --config c.py']


def _array(task, first, last, step, count):
  """What SLURM tells a task of an array."""
  values = {'ID': task, 'MIN': first, 'MAX': last, 'STEP': step, 'COUNT': count}
  return {f'SLURM_ARRAY_TASK_{name}': str(value) for name, value in values.items()}


@pytest.mark.parametrize(
  'env, flags',
  [
    ({}, ''),
    ({'SLURM_JOB_NUM_NODES': '1', 'SLURM_NTASKS': '1'}, ''),
    ({'SLURM_JOB_NUM_NODES': '4', 'SLURM_NTASKS': '4'}, ' --distributed'),
    ({'SLURM_JOB_NUM_NODES': '1', 'SLURM_NTASKS': '8'}, ' --distributed'),
    ({'SLURM_JOB_NUM_NODES': '1', **_array(31, 0, 31, 1, 32)}, ' --worker 31/32'),
    (_array(7, 4, 11, 1, 8), ' --worker 3/8'),
    (_array(8, 4, 12, 2, 5), ' --worker 2/5'),
    (_array(3, 3, 3, 1, 1), ' --worker 0/1'),
  ],
)
def test_slurm_trains_together_and_generates_apart(env, flags):
  assert _dry('slurm.sbatch', '--config', 'c.py', **env) == [f'srun {_MAIN} --config c.py{flags}']


@pytest.mark.parametrize(
  'env, message',
  [
    (
      _array(3, 3, 7, 1, 2),
      'this array of 2 tasks from 3 to 7 has gaps, .*--array 0-1 makes what is missing',
    ),
    (
      {'SLURM_JOB_NUM_NODES': '2', 'SLURM_NTASKS': '2', **_array(0, 0, 3, 1, 4)},
      'one worker on one node, not on 2; use --nodes 1',
    ),
  ],
)
def test_slurm_refuses_arrays_whose_tasks_are_no_workers(env, message):
  done = subprocess.run(
    ['bash', _LAUNCH / 'slurm.sbatch', '--config', 'c.py'],
    env={**os.environ, **env},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and done.stdout == ''
  (line,) = done.stderr.splitlines()
  assert re.search(f'^error: .*{message}', line)


@pytest.mark.parametrize('code, requeued', [(0, False), (1, False), (2, False), (143, True)])
def test_slurm_requeues_what_was_stopped_and_nothing_else(tmp_path, code, requeued):
  """`srun` and `scontrol` are stubs; tests/test_slurm.py has real ones."""
  stubs = {'srun': f'echo srun $SRUN_CPUS_PER_TASK; exit {code}', 'scontrol': 'echo "$@"'}
  done = _with_stubs(
    tmp_path, stubs, 'slurm.sbatch', '--config', 'c.py', SLURM_JOB_ID='12', SLURM_CPUS_PER_TASK='32'
  )
  assert done.returncode == code
  assert done.stdout.splitlines() == ['srun 32'] + ['requeue 12'] * requeued


_SSH = 'gcloud compute tpus tpu-vm ssh pod --zone zone --worker all --command'


@pytest.mark.parametrize(
  'env, options',
  [
    ({}, ''),
    ({'SPOT': '1'}, ' --spot'),
    ({'RESERVED': '1', 'DISK': 'd'}, ' --reserved --data-disk source=d,mode=read-only'),
  ],
)
def test_a_tpu_pod_is_asked_for(env, options):
  assert _dry('tpu_pod.sh', 'create', 'pod', 'zone', 'v5litepod-16', **env) == [
    'gcloud compute tpus queued-resources create pod --node-id pod --zone zone '
    f'--accelerator-type v5litepod-16 --runtime-version v2-alpha-tpuv5-lite{options}'
  ]


def _remote(*args):
  """The command that the hosts of a pod are told to run."""
  (line,) = _dry('tpu_pod.sh', *args)
  assert line.startswith(f'{_SSH} ')
  return line.removeprefix(f'{_SSH} ')


def test_a_tpu_pod_is_used_and_deleted():
  assert 'mount -o ro,noload /dev/sdb data' in _remote('mount', 'pod', 'zone')
  assert _remote('logs', 'pod', 'zone') == 'tail -n 3 ~/run.log | sed "s/^/$(hostname): /"'
  assert _remote('stop', 'pod', 'zone') == 'kill "$(cat ~/run.log.lock)"'
  assert _dry('tpu_pod.sh', 'delete', 'pod', 'zone') == [
    'gcloud compute tpus queued-resources delete pod --zone zone --force --quiet'
  ]


@pytest.mark.parametrize(
  'action, command', [('run', f'{_MAIN} --distributed'), ('workers', 'launch/tpu_worker.sh')]
)
def test_hosts_of_a_tpu_pod_run_under_the_supervisor(tmp_path, action, command):
  """The command is run as by a host, in a checkout where the supervisor is a stub that writes its words."""
  (tmp_path / 'imagenet_synth/launch').mkdir(parents=True)
  stub = tmp_path / 'imagenet_synth/launch/restart.sh'
  stub.write_text('#!/bin/sh\nprintf "%s\\n" "$PATH" "$@" > ~/words\n')
  stub.chmod(0o755)
  remote = _remote(action, 'pod', 'zone', '--config', 'c.py', '--config.jobs.a.title', 'two words')
  subprocess.run(['bash', '-c', remote], cwd=tmp_path, env={**os.environ, 'HOME': str(tmp_path)}, check=True)
  path, log, *words = (tmp_path / 'words').read_text().splitlines()
  assert path.startswith(f'{tmp_path}/imagenet_synth/.venv/bin:')
  assert log == f'{tmp_path}/run.log'
  assert words == [*command.split(), '--config', 'c.py', '--config.jobs.a.title', 'two words']


def test_a_tpu_pod_gets_the_python_and_the_versions_that_the_program_needs():
  remote = _remote('install', 'pod', 'zone', 'https://host/repository')
  subprocess.run(['bash', '-n', '-c', remote], check=True)
  (version,) = re.findall(r'venv --allow-existing --python (\S+)', remote)
  assert f'requires-python = ">={version}"' in (_ROOT / 'pyproject.toml').read_text()
  (lock,) = re.findall(r'-r (\S+)', remote)
  assert (_ROOT / lock).exists()


def test_a_worker_of_a_tpu_pod_has_its_number_and_its_chips(tmp_path):
  """`curl` is a stub that knows what a host's metadata say; `python` one that prints its words."""
  stubs = {
    'curl': 'case "$*" in *worker-number) printf 2;; *network-endpoints) printf a,b,c,d;; esac',
    'python': 'echo "$TPU_PROCESS_BOUNDS $TPU_CHIPS_PER_PROCESS_BOUNDS $TPU_VISIBLE_DEVICES $*"',
  }
  done = _with_stubs(tmp_path, stubs, 'tpu_worker.sh', '--config', 'c.py')
  words = '-m imagenet_synth.main --worker 2/4 --config c.py'
  assert done.stdout == f'1,1,1 2,2,1 0,1,2,3 {words}\n', done.stderr


@pytest.mark.parametrize(
  'env, args, message',
  [
    ({}, ('restart', 'pod', 'zone'), 'unknown action restart'),
    ({'SPOT': '1', 'RESERVED': '1'}, ('create', 'pod', 'zone', 'v5litepod-16'), 'SPOT and RESERVED exclude'),
  ],
)
def test_what_a_tpu_pod_cannot_do_is_refused(env, args, message):
  done = subprocess.run(
    ['bash', _LAUNCH / 'tpu_pod.sh', *args], env={**os.environ, **env}, capture_output=True, text=True
  )
  assert done.returncode == 2 and done.stdout == '' and message in done.stderr


def _supervised(tmp_path, *command):
  """A started supervisor that writes to tmp_path/log."""
  with open(tmp_path / 'stderr', 'w') as stderr:
    return subprocess.Popen(
      ['bash', _LAUNCH / 'restart.sh', tmp_path / 'log', *command],
      env={**os.environ, 'FIRST_PAUSE': '0'},
      stderr=stderr,
    )


@pytest.mark.parametrize('code', [0, 2, 130, 143])
def test_the_supervisor_starts_again_after_a_crash_only(tmp_path, code):
  """The program crashes twice, by an exception and by a signal, and ends with `code` then."""
  (tmp_path / 'log').write_text('an earlier run\n')
  program = (
    f'echo a >> {tmp_path}/starts; case $(wc -l < {tmp_path}/starts) in 1) exit 1;; 2) kill -9 $$;; esac'
  )
  assert _supervised(tmp_path, 'sh', '-c', f'{program}; exit {code}').wait(timeout=60) == code
  assert (tmp_path / 'starts').read_text() == 'a\na\na\n'
  log = (tmp_path / 'log').read_text()
  assert log.startswith('an earlier run\n')
  assert re.findall(r'ended with exit code (\d+)', log) == ['1', '137', str(code)]


def test_the_supervisor_runs_once_and_hands_a_stop_on(tmp_path):
  program = (
    f'trap "sleep 0.5; touch {tmp_path}/saved; exit 1" TERM; touch {tmp_path}/up; while :; do sleep 0.1; done'
  )
  supervisor = _supervised(tmp_path, 'sh', '-c', program)
  while not (tmp_path / 'up').exists():
    assert supervisor.poll() is None
  second = _supervised(tmp_path, 'touch', tmp_path / 'second')
  assert second.wait(timeout=60) == 2
  assert (tmp_path / 'stderr').read_text().startswith(f'error: process {supervisor.pid}, which writes to ')
  assert not (tmp_path / 'second').exists()
  assert (tmp_path / 'log.lock').read_text() == f'{supervisor.pid}\n'
  supervisor.terminate()
  # even if the program took the stop for a crash
  assert supervisor.wait(timeout=60) == 1
  assert (tmp_path / 'saved').exists()


def _documents():
  return {document['metadata']['name']: document for document in yaml.safe_load_all(_YAML.read_text())}


def _job_of(document):
  """The specification of the Kubernetes Job that a document is or makes."""
  if document['kind'] == 'Job':
    return document['spec']
  (replicated,) = document['spec']['replicatedJobs']
  assert set(replicated) == {'name', 'replicas', 'template'} and replicated['replicas'] == 1
  return replicated['template']['spec']


def test_kubernetes_objects_are_chosen_by_label():
  documents = _documents()
  assert {name: (document['kind'], document['apiVersion']) for name, document in documents.items()} == {
    'imagenet-synth': ('ServiceAccount', 'v1'),
    'train-tpu': ('JobSet', 'jobset.x-k8s.io/v1alpha2'),
    'train-gpu': ('JobSet', 'jobset.x-k8s.io/v1alpha2'),
    'generate': ('Job', 'batch/v1'),
  }
  labels = [document['metadata']['labels']['imagenet-synth'] for document in documents.values()]
  assert labels == ['account', 'train-tpu', 'train-gpu', 'generate']


@pytest.mark.parametrize('name', ['train-tpu', 'train-gpu', 'generate'])
def test_pods_of_kubernetes_find_their_data_and_each_other(name):
  document = _documents()[name]
  job = _job_of(document)
  assert job['completionMode'] == 'Indexed' and job['parallelism'] == job['completions']
  pod = job['template']['spec']
  (container,) = pod['containers']
  assert container['command'] == ['imagenet_synth']
  args = container['args']
  known = _known_flags()
  assert {arg[2:] for arg in args if arg.startswith('--')} <= known
  config = args[args.index('--config') + 1].split(':')[0]
  assert (_ROOT / f'configs/{config}.py').exists()
  # the bucket is where the program runs, so that relative paths are below it
  mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert mounts.keys() == {volume['name'] for volume in pod['volumes']}
  assert container['workingDir'] == mounts['bucket']
  assert job['template']['metadata']['annotations'] == {'gke-gcsfuse/volumes': 'true'}
  assert pod['serviceAccountName'] in _documents()
  if name == 'generate':
    assert args[args.index('--worker') + 1] == f'$(JOB_COMPLETION_INDEX)/{job["completions"]}'
  else:
    assert '--distributed' in args
  if name == 'train-gpu':
    (replicated,) = document['spec']['replicatedJobs']
    host = f'{name}-{replicated["name"]}-0-0.{name}'
    assert args[args.index('--coordinator') + 1].split(':')[0] == host
    assert args[args.index('--num_processes') + 1] == str(job['completions'])


@pytest.mark.parametrize('name', ['train-tpu', 'train-gpu', 'generate'])
def test_kubernetes_starts_pods_again_but_not_after_bad_input(name):
  document = _documents()[name]
  job = _job_of(document)
  # the policy is for pods that the kubelet does not start again
  assert job['template']['spec']['restartPolicy'] == 'Never'
  (container,) = job['template']['spec']['containers']
  bad_input = {'containerName': container['name'], 'operator': 'In', 'values': [2]}
  assert job['podFailurePolicy']['rules'][0] == {'action': 'FailJob', 'onExitCodes': bad_input}
  if name == 'generate':
    assert job['backoffLimitPerIndex'] > 0
  else:
    assert job['backoffLimit'] == 0 and document['spec']['failurePolicy']['maxRestarts'] > 0
    (rule,) = document['spec']['failurePolicy']['rules']
    assert (rule['action'], rule['onJobFailureReasons']) == ('FailJobSet', ['PodFailurePolicy'])


def _pins(path):
  """{name of a package: version} of lines such as `name==1.2`; all other lines are comments."""
  lines = [line for line in path.read_text().splitlines() if line and line[0] not in '#-']
  pins = [re.fullmatch(r'([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)', line) for line in lines]
  return {re.sub('[-_.]+', '-', pin[1].lower()): pin[2] for pin in pins}


@pytest.mark.parametrize('target', ['cpu', 'cuda', 'tpu'])
def test_locks_hold_the_versions_of_requirements_and_all_they_need(target):
  lock = _pins(_ROOT / f'requirements/{target}.lock')
  wanted = _pins(_ROOT / 'requirements.txt')
  assert wanted.items() <= lock.items()
  own = _pins(_ROOT / f'requirements/{target}.in')
  assert own.items() <= lock.items() and own['jax'] == wanted['jax']
  needed = {'cpu': 'kubernetes', 'cuda': 'jax-cuda13-plugin', 'tpu': 'libtpu'}
  assert needed[target] in lock and 'jaxlib' in lock
  if target == 'cuda':
    assert 'kubernetes' in lock and lock['jax-cuda13-plugin'] == lock['jaxlib'] == lock['jax']


def test_the_image_is_made_of_what_the_wheel_is():
  lines = (_ROOT / 'Dockerfile').read_text().splitlines()
  copied = [name for line in lines if line.startswith('COPY') for name in line.split()[1:-1]]
  assert {'configs', 'imagenet_synth', 'pyproject.toml', 'README.md', 'LICENSE'} <= set(copied)
  for name in copied:
    for target in ('cpu', 'cuda', 'tpu'):
      assert (_ROOT / name.replace('${TARGET}', target)).exists()
  ignored = (_ROOT / '.dockerignore').read_text().split()
  assert not set(copied) & set(ignored) and 'requirements' not in ignored


def _known_flags():
  main = (_ROOT / 'imagenet_synth/main.py').read_text()
  return set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", main))


def test_the_flags_that_scripts_pass_exist():
  for script in _LAUNCH.glob('*[bh]'):
    lines = [
      line for line in script.read_text().splitlines() if 'imagenet_synth.main' in line or 'command+=' in line
    ]
    passed = set(re.findall(r'--(\w+)', ' '.join(lines))) - {'dry'}
    assert passed <= _known_flags(), script
