"""Launch scripts, as far as they can be tried without a cluster: what they would run."""

import os
import pathlib
import re
import subprocess

import pytest
import yaml

_ROOT = pathlib.Path(__file__).parent.parent
_LAUNCH = _ROOT / 'launch'
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
  for name, body in {'srun': f'echo srun $SRUN_CPUS_PER_TASK; exit {code}', 'scontrol': 'echo "$@"'}.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{body}\n')
    (tmp_path / name).chmod(0o755)
  done = subprocess.run(
    ['bash', _LAUNCH / 'slurm.sbatch', '--config', 'c.py'],
    env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '12', 'SLURM_CPUS_PER_TASK': '32'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == code
  assert done.stdout.splitlines() == ['srun 32'] + ['requeue 12'] * requeued


def test_a_tpu_pod_is_asked_for_used_and_deleted():
  assert _dry('tpu_pod.sh', 'create', 'pod', 'v5litepod-16', 'zone') == [
    'gcloud compute tpus queued-resources create pod --node-id pod --zone zone '
    '--accelerator-type v5litepod-16 --runtime-version v2-alpha-tpuv5-lite'
  ]
  ssh = 'gcloud compute tpus tpu-vm ssh pod --zone zone --worker all --command'
  (line,) = _dry('tpu_pod.sh', 'run', 'pod', 'zone', '--config', 'c.py')
  assert line.startswith(f'{ssh} cd imagenet_synth && nohup .venv/bin/{_MAIN} --distributed')
  assert '--config c.py' in line
  assert _dry('tpu_pod.sh', 'logs', 'pod', 'zone') == [f'{ssh} tail -n 3 ~/run.log']
  assert _dry('tpu_pod.sh', 'delete', 'pod', 'zone') == [
    'gcloud compute tpus queued-resources delete pod --zone zone --force --quiet'
  ]


def test_an_unknown_action_is_refused():
  done = subprocess.run(['bash', _LAUNCH / 'tpu_pod.sh', 'restart', 'pod'], capture_output=True, text=True)
  assert done.returncode == 2 and 'unknown action restart' in done.stderr


def test_job_sets_have_the_shape_that_the_controller_takes():
  documents = list(yaml.safe_load_all((_LAUNCH / 'gke_jobset.yaml').read_text()))
  assert [document['kind'] for document in documents] == ['JobSet', 'JobSet']
  for document in documents:
    assert document['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
    assert set(document['spec']) <= {'failurePolicy', 'replicatedJobs'}
    for replicated in document['spec']['replicatedJobs']:
      assert set(replicated) == {'name', 'replicas', 'template'}
      job = replicated['template']['spec']
      assert job['completionMode'] == 'Indexed' and job['parallelism'] == job['completions']
      pod = job['template']['spec']
      (container,) = pod['containers']
      assert ' '.join(container['command']) == _MAIN
      assert {mount['name'] for mount in container['volumeMounts']} == {
        volume['name'] for volume in pod['volumes']
      }
      name = container['args'][container['args'].index('--config') + 1].split(':')[0]
      assert (_ROOT / name).exists()
      worker = re.search(r'--worker \S+/(\d+)', ' '.join(container['args']))
      assert (int(worker[1]) == job['completions']) if worker else ('--distributed' in container['args'])


def test_the_flags_that_scripts_pass_exist():
  main = (_ROOT / 'imagenet_synth/main.py').read_text()
  known = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", main))
  for script in _LAUNCH.iterdir():
    lines = [
      line
      for line in script.read_text().splitlines()
      if 'imagenet_synth.main' in line or 'args:' in line or 'command+=' in line
    ]
    passed = set(re.findall(r'--(\w+)', ' '.join(lines))) - {'dry'}
    assert passed <= known, script
