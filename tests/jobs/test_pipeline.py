"""Bad configurations and folders end before anything runs, in one line that names the culprit."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_json
from imagenet_synth.jobs import pipeline
from imagenet_synth.jobs.plan import class_plan

_ROOT = pathlib.Path(__file__).parent.parent.parent
_EMBED = {
  'job': 'embed',
  'prompts': 'classes',
  'max_length': 8,
  'dataset': {'name': 'digits', 'split': 'train'},
  'encoder': {'weights': 'somewhere'},
}
_GENERATE = {
  'job': 'generate',
  'text': 'embed',
  'dataset': {'name': 'digits', 'split': 'train'},
  'stages': [{'weights': 'pretrain'}],
  'per_class': 1,
  'shard_size': 1,
  'batch_size': 1,
}


def _config(**jobs):
  return {'jobs': jobs, 'order': list(jobs)}


def _error(config, workdir):
  with pytest.raises(InputError) as error:
    pipeline.run(config, workdir)
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize(
  'config, message',
  [
    (
      _config(embed={**_EMBED, 'promts': 'classes'}),
      "config: unknown key embed.promts; did you mean 'prompts'?",
    ),
    (_config(embed={**_EMBED, 'dataset': {'name': 'digits'}}), 'config: missing key embed.dataset.split'),
    (_config(embed={k: v for k, v in _EMBED.items() if k != 'encoder'}), 'config: missing key embed.encoder'),
    (
      _config(embed={**_EMBED, 'max_length': 'long'}),
      "config: embed.max_length is 'long', must be an integer",
    ),
    (_config(embed={**_EMBED, 'job': 'embedd'}), "config: embed.job is 'embedd', known: "),
    (_config(embed={k: v for k, v in _EMBED.items() if k != 'job'}), 'config: missing key embed.job'),
    ({**_EMBED}, 'config: missing key name'),
    ({'jobs': {'embed': _EMBED}, 'order': ['embed', 'more']}, "order names 'more'"),
    ({'jobs': {'embed': _EMBED}, 'order': []}, 'jobs.embed is not in order'),
    ({'jobs': {}}, 'config: missing key order'),
    ({'job_s': {}}, 'config: unknown key job_s'),
  ],
)
def test_a_bad_config_is_refused_before_anything_runs(config, message, tmp_path):
  assert message in _error(config, tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_workdir_that_cannot_be_written(tmp_path):
  file = tmp_path / 'file'
  file.touch()
  assert _error(_config(embed=_EMBED), file / 'run') == (
    f'cannot write to workdir {file}/run: Not a directory'
  )


def test_a_stage_that_was_not_trained_cannot_be_sampled(tmp_path):
  write_json_of_embed(tmp_path)
  assert _error(_config(generate=_GENERATE), tmp_path) == (
    f'generate needs pretrain, which has not been run to its end: no job.json in {tmp_path}/pretrain'
  )
  assert not (tmp_path / 'generate/job.json').exists()


def write_json_of_embed(workdir):
  """An embed job as if it were done."""
  (workdir / 'embed').mkdir()
  np.savez(
    workdir / 'embed/text_embeddings.npz',
    prompts=np.array(['zero']),
    embeddings=np.zeros((1, 2, 3), np.float32),
    null=np.zeros((2, 3), np.float32),
  )
  write_json(workdir / 'embed/job.json', {'result': {}, 'origin': {}})


def test_a_folder_of_another_config_is_not_touched(tmp_path):
  (tmp_path / 'embed').mkdir()
  write_json(tmp_path / 'embed/config.json', {**_EMBED, 'max_length': 9})
  assert _error(_config(embed=_EMBED), tmp_path) == (
    f'{tmp_path}/embed holds work with max_length = 9, the config says 8; use another workdir or '
    f'delete {tmp_path}/embed'
  )


def test_dry_run_runs_nothing(tmp_path):
  (tmp_path / 'embed').mkdir()
  write_json(tmp_path / 'embed/config.json', _EMBED)
  text = pipeline.dry_run(_config(embed=_EMBED, generate=_GENERATE), tmp_path)
  assert text.splitlines() == [
    'embed     embed     begun',
    'generate  generate  left',
    f'0 of 2 jobs done, 2 left, in {tmp_path}',
  ]
  assert [path.name for path in tmp_path.iterdir()] == ['embed']


def test_the_program_ends_with_code_2_and_one_line(tmp_path):
  config = tmp_path / 'config.py'
  config.write_text(
    'from ml_collections import ConfigDict\n'
    f'def get_config(): return ConfigDict({_config(generate=_GENERATE)!r})\n'
  )
  done = subprocess.run(
    [sys.executable, '-m', 'imagenet_synth.main', '--config', config, '--workdir', tmp_path / 'w'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == (
    f'error: generate needs embed, which has not been run to its end: no job.json in {tmp_path}/w/embed'
  )
  assert 'Traceback' not in done.stderr
  assert json.loads((tmp_path / 'w/generate/config.json').read_text()) == _GENERATE


def test_every_prefix_of_whole_rounds_is_balanced():
  labels, indices = class_plan([5] * 7)
  for rounds in range(1, 6):
    np.testing.assert_array_equal(np.bincount(labels[: 7 * rounds]), np.full(7, rounds))
  assert len(set(zip(labels.tolist(), indices.tolist()))) == 35
  assert indices.max() == 4
  np.testing.assert_array_equal(labels, np.arange(35) % 7)


def test_prefixes_of_an_unequal_plan_keep_its_ratios():
  counts = np.array([1, 7, 30, 12])
  labels, indices = class_plan(4 * counts)
  for multiple in (1, 2, 3, 4):
    np.testing.assert_array_equal(np.bincount(labels[: 50 * multiple]), multiple * counts)
  once = class_plan(counts)
  np.testing.assert_array_equal(labels[:50], once[0])
  np.testing.assert_array_equal(indices[:50], once[1])
  for label, count in enumerate(4 * counts):
    np.testing.assert_array_equal(indices[labels == label], np.arange(count))
