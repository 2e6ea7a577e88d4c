"""Plans and their folders: what is refused, and in which words; what a dry run tells."""

import copy
import json

import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.config import execution_keys
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_json
from tests.configs import complete, each_kind
from tests.small_pipeline import build_section

_JOBS = json.loads(complete.get_config().to_json_best_effort())['jobs']
_EMBED = _JOBS['embed_classes']
_CAPTIONS, _PRETRAIN = _JOBS['embed_captions'], _JOBS['pretrain_base']


def _config(**jobs):
  return {'jobs': copy.deepcopy(jobs), 'order': list(jobs)}


def _error(config, workdir):
  with pytest.raises(InputError) as error:
    pipeline.run(config, workdir)
  assert '\n' not in str(error.value)
  return str(error.value)


def _without(section, key):
  return {k: v for k, v in section.items() if k != key}


@pytest.mark.parametrize(
  'config, message',
  [
    (
      _config(embed={**_EMBED, 'promts': 'classes'}),
      "config: unknown key jobs.embed.promts; did you mean 'prompts'?",
    ),
    (
      _config(embed={**_EMBED, 'dataset': {'name': 'digits'}}),
      'config: missing key jobs.embed.dataset.split',
    ),
    (_config(embed=_without(_EMBED, 'encoder')), 'config: missing key jobs.embed.encoder'),
    (
      _config(embed={**_EMBED, 'max_length': 'long'}),
      "config: jobs.embed.max_length is 'long', must be an integer",
    ),
    (_config(embed={**_EMBED, 'job': 'embedd'}), "config: jobs.embed.job is 'embedd', known: "),
    (_config(embed=_without(_EMBED, 'job')), 'config: missing key jobs.embed.job'),
    ({**_EMBED}, 'config: unknown key job; known keys: jobs, order, only'),
    ({'jobs': {'embed': _EMBED}, 'order': ['embed', 'more']}, "order[1] is 'more', which is not in jobs"),
    ({'jobs': {'embed': _EMBED}, 'order': []}, 'order is [], must be a list of names'),
    ({'jobs': {'embed': _EMBED}}, 'config: missing key order'),
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


def test_a_job_that_is_run_alone_needs_the_others_finished(tmp_path):
  config = _config(embed=_CAPTIONS, train={**_PRETRAIN, 'text': 'embed'}) | {'only': ['train']}
  assert _error(config, tmp_path) == (
    f'train needs embed, which has not been run to its end: no job.json in {tmp_path}/embed '
    '(config: jobs.train.text)'
  )
  assert not list(tmp_path.iterdir())


def test_jobs_of_the_workdir_can_be_referred_to(tmp_path):
  config = _config(train={**_PRETRAIN, 'text': 'embed'})
  assert "jobs.train.text is 'embed', which is no job of this config, nor one in" in _error(config, tmp_path)
  (tmp_path / 'embed').mkdir()
  write_json(tmp_path / 'embed/config.json', _EMBED)
  assert 'jobs.train.text has' in _error(config, tmp_path)
  write_json(tmp_path / 'embed/config.json', _CAPTIONS)
  (planned,) = pipeline.plan(config, tmp_path).planned
  assert planned.name == 'train'


@pytest.mark.parametrize('job, key', [('train', 'writers'), ('real', 'writers'), ('sweep', 'cas.writers')])
def test_where_metrics_go_may_change_on_the_way(job, key):
  section = each_kind.get_config().jobs[job].to_dict()
  assert key in execution_keys(build_section(section))


def test_a_folder_of_another_config_is_not_touched(tmp_path):
  (tmp_path / 'embed').mkdir()
  write_json(tmp_path / 'embed/config.json', {**_EMBED, 'max_length': 9})
  (tmp_path / 'embed/text_states.npy').touch()
  assert _error(_config(embed=_EMBED), tmp_path) == (
    f'{tmp_path}/embed holds work with max_length = 9, the config says 32; use another workdir, or '
    '--redo embed makes it anew'
  )


def test_results_of_another_version_are_refused(tmp_path):
  (tmp_path / 'embed').mkdir()
  write_json(tmp_path / 'embed/config.json', _EMBED)
  write_json(tmp_path / 'embed/job.json', {'result': {}, 'origin': {'inputs': {}}, 'seconds': 1.0})
  assert 'was made by another version of the program (format 1, here 3)' in _error(
    _config(embed=_EMBED), tmp_path
  )


def test_dry_run_runs_nothing(tmp_path):
  (tmp_path / 'embed').mkdir()
  write_json(tmp_path / 'embed/config.json', _CAPTIONS)
  (tmp_path / 'embed/text_states.npy').touch()
  config = _config(embed=_CAPTIONS, train={**_PRETRAIN, 'text': 'embed'})
  lines = pipeline.dry_run(config, tmp_path).splitlines()
  head, embed, train, total, *_, last = map(str.split, lines)
  assert head[:6] == ['job', 'kind', 'status', 'parameters', 'FLOPs', 'memory']
  assert embed[:3] == ['embed', 'embed', 'begun'] and train[:3] == ['train', 'pretrain', 'left']
  assert int(train[3].replace(',', '')) > 1000 and float(train[4]) > 1e6 and total[0] == 'total'
  assert ' '.join(last) == f'0 of 2 jobs done, 2 left, in {tmp_path}'
  assert [path.name for path in tmp_path.iterdir()] == ['embed']


def test_dry_run_names_files_that_are_yet_to_come(tmp_path):
  section = {**_JOBS['import_inception'], 'path': 'weights/inception.safetensors'}
  lines = pipeline.dry_run(_config(inception=section), tmp_path).splitlines()
  assert lines[-2] == ("config: jobs.inception.path is 'weights/inception.safetensors', which is not there")


def _trained_on(dataset, **more):
  """An embed job, and one that trains a stage of 16 pixels on the same images."""
  embed = {**_EMBED, 'dataset': dataset}
  preview = {**_PRETRAIN['preview'], 'prompts': ['cat']}
  pretrain = {**_PRETRAIN, 'text': 'embed', 'dataset': dataset, 'preview': preview, **more}
  stage = {**pretrain['stage'], 'size': 16, 'channels': 3}
  return _config(embed=embed, pretrain={**pretrain, 'stage': stage})


@pytest.mark.parametrize('where', ['dataset', 'blend[0].dataset'])
def test_training_on_images_that_would_be_enlarged_is_refused_before_anything_runs(
  where, tmp_path, monkeypatch
):
  for number, size in enumerate([(16, 20), (15, 40), (40, 3)]):
    path = tmp_path / f'photos/train/cat/{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path)
  photos = {'name': 'folder', 'split': 'train', 'directory': str(tmp_path / 'photos')}
  large = {**photos, 'min_side': 16}
  blend = [{'dataset': photos, 'share': 0.25}]
  config = _trained_on(photos) if where == 'dataset' else _trained_on(large, blend=blend)
  workdir = tmp_path / 'work'
  assert _error(config, workdir) == (
    f'config: jobs.pretrain.{where} has 2 of 3 images whose shorter side is less than 16 pixels, the size of '
    f'the stage; {where}.min_side=16 leaves them out, enlarge=True trains on them, enlarged'
  )
  # no job has begun; what was found out of the images is kept
  assert [path.name for path in workdir.iterdir()] == ['datasets']
  run = []
  for name in ('embed', 'pretrain'):
    kind = pipeline.JOBS[name]._replace(run=lambda config, folder: run.append(folder.name) or {})
    monkeypatch.setitem(pipeline.JOBS, name, kind)
  for accepted in (_trained_on(large), _trained_on(photos, enlarge=True)):
    pipeline.run(accepted, tmp_path / f'work_{len(run)}')
  assert run == ['embed', 'pretrain'] * 2


def test_enlarging_images_that_are_known_to_be_small_is_refused_in_a_dry_run(tmp_path):
  digits = {'name': 'digits', 'split': 'train'}
  preview = {**_PRETRAIN['preview'], 'prompts': ['one']}
  stage = {**_PRETRAIN['stage'], 'size': 64, 'channels': 1}
  config = _trained_on(digits, preview=preview)
  config['jobs']['pretrain']['stage'] = stage
  with pytest.raises(InputError) as error:
    pipeline.dry_run(config, tmp_path)
  assert str(error.value) == (
    'config: jobs.pretrain.dataset has images of 32 pixels, the stage is of 64; set enlarge=True to train on '
    'them, enlarged'
  )
  config['jobs']['pretrain']['enlarge'] = True
  pipeline.dry_run(config, tmp_path)
