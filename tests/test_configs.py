"""Every configuration file can be run, as far as that can be known without running it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from imagenet_synth.jobs import pipeline
from imagenet_synth.prompts import imagenet_names

_CONFIGS = Path(__file__).parents[1] / 'configs'


def _config(name, *argument):
  spec = importlib.util.spec_from_file_location(name, _CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return json.loads(module.get_config(*argument).to_json_best_effort())


@pytest.mark.parametrize('name', sorted(path.stem for path in _CONFIGS.glob('*.py')))
def test_every_key_is_known_and_every_job_has_what_it_reads(tmp_path, name):
  config = _config(name)
  jobs = pipeline.plan(config, tmp_path)
  assert [job.folder.name for job in jobs] == config['order']
  # a job reads jobs before it: names of jobs occur in sections as values
  for position, job in enumerate(config['order'][:-1]):
    named = set(re.findall(r'"([a-z0-9_]+)"', json.dumps(list(_values(config['jobs'][job])))))
    assert not named & set(config['order'][position:]), job


def _values(section):
  if isinstance(section, dict):
    for key, value in section.items():
      yield from _values(value) if key not in ('job', 'kind') else ()
  elif isinstance(section, list):
    for value in section:
      yield from _values(value)
  else:
    yield section


@pytest.mark.parametrize('name, sizes', [
    ('imagenet', {'pretrain_base': 2_411_362_307, 'finetune_base': 2_411_362_307,
                  'pretrain_sr256': 521_145_987, 'finetune_sr256': 521_145_987,
                  'pretrain_sr1024': 512_749_187}),
    ('deepfloyd', {'finetune_base': 371_605_830, 'finetune_sr256': 1_243_277_190}),
])
def test_dry_run_counts_parameters_at_full_size(tmp_path, name, sizes):
  lines = pipeline.dry_run(_config(name), tmp_path).splitlines()
  counted = {lines[i - 1].split()[0]: int(line.split()[0].replace(',', ''))
             for i, line in enumerate(lines) if ' parameters; ' in line}
  assert counted == sizes


def test_dry_run_divides_memory_among_devices(tmp_path):
  # float32 weights, average, gradients and Adafactor's factors of 2.41e9 parameters over fsdp = 8
  line, = (line for line in pipeline.dry_run(_config('imagenet', 'pretrain_base') | {
      'text': 'embed'}, tmp_path).splitlines() if 'size not known' in line)
  assert 'there is no job embed, neither in this config nor in' in line
  (tmp_path / 'embed').mkdir()
  (tmp_path / 'embed/config.json').write_text(json.dumps(_config('imagenet')['jobs']['embed']))
  line, = (line for line in pipeline.dry_run(_config('imagenet', 'pretrain_base'),
                                             tmp_path).splitlines() if 'parameters' in line)
  gib = float(re.search(r'take ([\d.]+) GiB on each of 8 devices', line)[1])
  assert gib == pytest.approx(3 * 4 * 2_411_362_307 / 8 / 2**30, rel=0.05)


def test_one_job_of_a_pipeline_is_the_same_section(tmp_path):
  whole, one = _config('imagenet'), _config('imagenet', 'finetune_sr256')
  assert one == whole['jobs']['finetune_sr256'] | {'name': 'finetune_sr256'}
  with pytest.raises(ValueError, match="there is no job 'nothing'; known: embed, "):
    _config('imagenet', 'nothing')


@pytest.mark.parametrize('name', ['imagenet', 'imagenet_small', 'deepfloyd'])
def test_previews_are_of_classes_of_imagenet(name):
  for section in _config(name)['jobs'].values():
    assert set(section.get('preview', {}).get('prompts', ())) <= set(imagenet_names().values())
