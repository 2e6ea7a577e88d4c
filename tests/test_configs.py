"""Every configuration file can be run, as far as that can be known without running it."""

import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import cifar10_small, imagenet_study, recipes
from imagenet_synth import pipeline
from imagenet_synth.core.config import build, build_one_of
from imagenet_synth.core.errors import InputError
from imagenet_synth.cost import networks
from imagenet_synth.cost.jobs import cost_of
from imagenet_synth.cost.memory import Division
from imagenet_synth.data.class_names import imagenet_names
from imagenet_synth.inputs.text import Text
from imagenet_synth.models.registry import CLASSIFIERS
from imagenet_synth.report import paper
from imagenet_synth.train.optim import learning_rate
from imagenet_synth.train.recipe import Recipe

_CONFIGS = Path(__file__).parents[1] / 'configs'
# these hold parts of configs
_RUNNABLE = sorted({path.stem for path in _CONFIGS.glob('*.py')} - {'recipes', 'models'})
_NUM_IMAGENET = 1_281_167


def _get_config(name, *argument):
  spec = importlib.util.spec_from_file_location(name, _CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*(argument or _ARGUMENTS.get(name, ())))


def _config(name, *argument):
  return json.loads(_get_config(name, *argument).to_json_best_effort())


@pytest.fixture
def photos(tmp_path, monkeypatch):
  """The folders of images that configs want, with a file in each."""
  monkeypatch.chdir(tmp_path)
  for split in ('train', 'test'):
    for name in cifar10_small.PREVIEW:
      (tmp_path / 'data/cifar10' / split / name).mkdir(parents=True)
      (tmp_path / 'data/cifar10' / split / name / '0.jpg').touch()


_ARGUMENTS = {'own_classes': ('data/cifar10',)}
"""What stands behind the colon of configs that need it."""


@pytest.mark.parametrize('name', _RUNNABLE)
def test_every_config_is_planned_whole(tmp_path, name, photos):
  config = _config(name)
  planned = pipeline.plan(config, tmp_path / 'run').planned
  assert [job.name for job in planned] == config['order']


@pytest.mark.slow
def test_deepfloyd_on_one_gpu_of_24_gb_trains_the_stage_that_fits(tmp_path):
  config = _config('deepfloyd', 'gpu_24gb')
  planned = pipeline.plan(config, tmp_path)
  assert len(planned.planned) == 9
  cost = cost_of(planned.known['finetune_base'], planned.known, 1)
  gigabytes = cost.device_bytes / 1e9
  # weights, average, two moments of Adam, sum of gradients; and what a part of the batch takes. Of IF-II-L
  # these alone would be 24.9 GB
  assert 5 * 4 * 371_605_830 / 1e9 < gigabytes < 24
  assert 5 * 4 * 1_243_277_190 / 24e9 > 1
  trained = config['jobs']['finetune_base']
  assert trained['batch_size'] / trained['accumulate'] == 32
  one = _config('deepfloyd', 'gpu_24gb:finetune_base')
  assert one == config | {'only': ['finetune_base']}


def test_deepfloyd_draws_own_classes_from_a_folder(tmp_path, photos):
  config = _config('deepfloyd', 'own:data/cifar10')
  jobs = config['jobs']
  assert [job.name for job in pipeline.plan(config, tmp_path / 'run').planned] == config['order']
  assert set(jobs['finetune_base']['preview']['prompts']) <= set(cifar10_small.PREVIEW)
  # nothing of ImageNet is left
  assert {name for name in re.findall(r'"name": "(\w+)"', json.dumps(jobs)) if 'imagenet' in name} == set()
  with pytest.raises(InputError, match='configs/deepfloyd.py:own:data/mine'):
    _config('deepfloyd', 'own')


def test_prompts_of_deepfloyd_are_those_that_it_was_trained_with(tmp_path):
  assert _config('deepfloyd')['jobs']['embed']['cleaning'] == 'deepfloyd'
  jobs = pipeline.plan(_config('deepfloyd'), tmp_path).known
  embed = jobs.of(Text('embed'))
  assert sum(map(str.__ne__, embed.cleaned(prompts := embed.known_prompts(jobs)), prompts)) == 109


def test_without_a_folder_of_test_images_own_classes_are_tested_on_a_part_that_nothing_has_seen(
  tmp_path, photos
):
  shutil.rmtree(tmp_path / 'data/cifar10/test')
  config = _config('own_classes')
  jobs = config['jobs']
  splits = [
    jobs['classify_synthetic']['real'],
    jobs['select_base']['reference'],
    jobs['classify_real']['test'],
  ]
  assert [of['split'] for of in splits] == ['train[:60%]', 'train[60%:80%]', 'train[80%:]']
  pipeline.plan(config, tmp_path / 'run')
  jobs['select_base']['reference']['split'] = 'train[60%:81%]'
  with pytest.raises(InputError, match='jobs.select_base.reference, .*: what is tested was chosen by these'):
    pipeline.plan(config, tmp_path / 'run')


def _derived(name, *argument):
  """The training jobs of a base: how many steps, and of what size."""
  base = _config(name, *argument)['jobs']['pretrain_base']
  return base['num_steps'], base['stage']['size'], base['dataset'].get('per_class')


def test_options_of_own_classes_come_before_what_the_folder_tells(photos):
  assert _derived('own_classes', 'data/cifar10') == (1000, 16, None)
  assert _derived('own_classes', 'data/cifar10:10') == (1000, 16, 10)
  assert _derived('own_classes', 'data/cifar10:10,steps=400,size=64') == (400, 32, 10)
  assert _derived('own_classes', 'data/cifar10:size=64') == (1000, 32, None)
  for name in cifar10_small.PREVIEW:
    for i in range(1, 100):
      Path('data/cifar10/train', name, f'{i}.jpg').touch()
  assert _derived('own_classes', 'data/cifar10')[0] == 2 * 850
  # digits must not be mirrored
  jobs = _config('own_classes', 'data/cifar10:flip=no')['jobs']
  assert not jobs['pretrain_base']['flip'] and not jobs['classify_real']['recipe']['flip']
  for wrong in ('data/cifar10:10,stpes=3', 'data/cifar10:size=big'):
    with pytest.raises(InputError, match='is neither a number of images nor one of steps, size'):
      _config('own_classes', wrong)
  with pytest.raises(InputError, match='data/mine: no such folder'):
    _config('own_classes', 'data/mine')


def test_own_classes_start_from_public_weights_where_they_and_a_gpu_are(
  tmp_path, photos, monkeypatch, capsys
):
  for name in ('IF-I-M-v1.0', 'IF-II-L-v1.0'):
    (tmp_path / 'weights' / name / 'unet').mkdir(parents=True)
  assert 'import_stage_1' not in _config('own_classes', 'data/cifar10')['jobs']
  asked_for = _config('own_classes', 'data/cifar10:start=deepfloyd')
  monkeypatch.setattr('imagenet_synth.core.accelerators.has_gpu', lambda: True)
  assert _config('own_classes', 'data/cifar10') == asked_for == _config('deepfloyd', 'own:data/cifar10')
  assert "from DeepFloyd IF's weights" in capsys.readouterr().err
  # a GPU alone: larger
  assert _derived('own_classes', 'data/cifar10:start=small') == (10_000, 32, None)
  shutil.rmtree(tmp_path / 'weights/IF-II-L-v1.0')
  config = _config('own_classes', 'data/cifar10')
  assert config['jobs']['pretrain_sr']['stage']['size'] == 64
  pipeline.plan(config, tmp_path / 'run')


def test_names_of_own_classes_are_in_prompts(tmp_path, photos):
  (tmp_path / 'data/cifar10/names.txt').write_text('automobile: car\n')
  config = _config('own_classes', 'data/cifar10')
  jobs = pipeline.plan(config, tmp_path / 'run').known
  assert jobs['embed_classes'].known_prompts(jobs)[1] == 'car'
  assert 'a small photo of a car' in config['jobs']['pretrain_base']['preview']['prompts']
  (tmp_path / 'mine.txt').write_text('automobil: car\n')
  with pytest.raises(InputError, match="'automobil', which is no class; did you mean 'automobile'"):
    _config('own_classes', 'data/cifar10:names=mine.txt')


def test_the_report_of_own_classes_is_called_after_the_folder_not_by_its_whole_path(
  tmp_path, photos, monkeypatch
):
  title = lambda name, argument: _config(name, argument)['jobs']['report']['title']
  whole = f'{tmp_path}/data/cifar10/'
  assert title('own_classes', whole) == title('deepfloyd', f'own:{whole}') == 'Own classes: cifar10'
  monkeypatch.chdir(whole)
  assert title('own_classes', '.') == 'Own classes: cifar10'


def test_class_folders_themselves_are_looked_at_and_not_what_is_beside_them(tmp_path, photos):
  (tmp_path / 'data/cifar10/other/a\nb').mkdir(parents=True)
  config = _config('own_classes', 'data/cifar10/train/')
  pipeline.plan(config, tmp_path / 'run')
  train = config['jobs']['pretrain_base']['dataset']
  assert (train['directory'], train['split']) == ('data/cifar10', 'train[:60%]')


@pytest.mark.parametrize('name', _RUNNABLE)
def test_no_config_chooses_by_images_of_a_split_that_it_tests_on(name, photos):
  jobs = _config(name)['jobs'].values()
  # parts of one split that overlap are found by the plan
  split = lambda dataset: (dataset['name'], dataset['split'])
  tested = {split(job['test']) for job in jobs if job['job'] == 'classify'}
  for job in jobs:
    looked_at = [job.get('reference'), job.get('cas', {}).get('test')]
    looked_at += job['references'].values() if job['job'] == 'sweep' else []
    assert not tested & {split(dataset) for dataset in looked_at if dataset}


@pytest.mark.parametrize(
  'name, sizes',
  [
    (
      'imagenet',
      {
        'pretrain_base': 2_411_362_307,
        'finetune_base': 2_411_362_307,
        'pretrain_sr256': 521_145_987,
        'finetune_sr256': 521_145_987,
        'pretrain_sr1024': 512_749_187,
      },
    ),
    ('deepfloyd', {'finetune_base': 371_605_830, 'finetune_sr256': 1_243_277_190}),
  ],
)
@pytest.mark.slow
def test_networks_have_as_many_parameters_at_full_size(tmp_path, name, sizes):
  config = _config(name)
  known = pipeline.plan(config, tmp_path).known
  text = Text('embed').shape(known)
  counted = {
    job: networks.stage_evaluation(known[job].trained_stage(known), text).num_params for job in sizes
  }
  assert counted == sizes


@pytest.mark.slow
def test_dry_run_divides_memory_among_devices(tmp_path):
  """Weights, average, gradients, Adafactor's factors of 2.41e9 parameters, over fsdp = 8; a step has more."""
  config = _config('imagenet', 'pretrain_base')
  known = pipeline.plan(config, tmp_path).known
  cost = cost_of(known['pretrain_base'], known, 8)
  assert cost.division == Division(8, 8, 1, 1)
  assert 3 * 4 * 2_411_362_307 / 8 < cost.device_bytes
  del config['jobs']['embed']['encoder']['size']
  text = pipeline.dry_run(config, tmp_path)
  assert '- stands where it is not known yet: jobs.embed.encoder.size' in text


def test_one_job_of_a_pipeline_is_the_same_section(tmp_path):
  whole, one = _config('imagenet'), _config('imagenet', 'finetune_sr256')
  assert one == whole | {'only': ['finetune_sr256']}
  (planned,) = pipeline.plan(one, tmp_path).planned
  assert planned.name == 'finetune_sr256'
  with pytest.raises(ValueError, match="there is no job 'nothing'; known: embed, "):
    _config('imagenet', 'nothing')


def _most_evaluations(config):
  """The images that a sweep draws, and the most evaluations of its network."""
  costs = []
  for trial in config.trials:
    settings = dataclasses.replace(config.stages[-1].sampler, **trial)
    # what an earlier sweep has found may be any guidance
    guided = settings.guidance != 1 or (config.stages[-1].tuned_by and 'guidance' not in trial)
    costs.append(settings.num_steps * (2 if guided else 1))
  costs.sort(reverse=True)
  num_images = evaluations = 0
  for before, end in itertools.pairwise([0, *config.rounds]):
    num_images += 1000 * (end - before) * len(costs)
    evaluations += 1000 * (end - before) * sum(costs)
    costs = costs[: math.ceil(config.halving.keep * len(costs))] if config.halving else costs
  return num_images, evaluations


def test_sweeps_of_imagenet_cost_less_than_the_data_set(tmp_path):
  """The figures of the comment in imagenet.py."""
  planned = pipeline.plan(_config('imagenet'), tmp_path).planned
  costs = {job.name: _most_evaluations(job.config) for job in planned if job.folder.config['job'] == 'sweep'}
  of_sr = {name for name in costs if 'sr256' in name}
  assert len(of_sr) == 3 and len(costs) == 6
  for names, num_images, evaluations in ((set(costs) - of_sr, 3.43e6, 1.16e9), (of_sr, 1.404e6, 3.86e8)):
    total = np.sum([costs[name] for name in names], axis=0)
    np.testing.assert_allclose(total, [num_images, evaluations], rtol=5e-3)
  assert evaluations < 1_281_167 * 1000
  # each goes on from the one before, and images are drawn by what all of them have found
  stages = {job.name: job.config.stages for job in planned if hasattr(job.config, 'stages')}
  tuned_by = {name: uses[-1].tuned_by and uses[-1].tuned_by.name for name, uses in stages.items()}
  assert tuned_by['sweep_base_steps'] == 'sweep_guidance' and tuned_by['sweep_guidance'] == 'sweep_base'
  assert tuned_by['sweep_sr256_steps'] == 'sweep_sr256'
  assert tuned_by['sweep_sr256'] == 'sweep_sr256_guidance'
  base, sr, _ = stages['generate']
  assert (base.tuned_by.name, sr.tuned_by.name) == ('sweep_base_steps', 'sweep_sr256_steps')


@pytest.mark.parametrize('name', ['imagenet', 'imagenet_small', 'deepfloyd'])
def test_previews_are_of_classes_of_imagenet(name):
  for section in _config(name)['jobs'].values():
    assert set(section.get('preview', {}).get('prompts', ())) <= set(imagenet_names().values())


@pytest.mark.parametrize(
  'name, num_epochs, peak, warmup_epochs, later',
  [
    ('cas', 90, 0.4, 5, {29.9: 1, 30.1: 0.1, 59.9: 0.1, 60.1: 0.01, 79.9: 0.01, 80.1: 0.001}),
    ('resnet50', 90, 1.6, 5, {29.9: 1, 80.1: 0.001}),
    ('resnet', 200, 1.6, 5, {102.5: 0.5, 199.9: 0}),
    ('resnet_rs', 350, 1.6, 5, {177.5: 0.5, 349.9: 0}),
    ('resnet_rs_large', 350, 1.6, 5, {177.5: 0.5, 349.9: 0}),
    ('vit_s16', 300, 1e-3, 10_000 * 1024 / _NUM_IMAGENET, {153.996: 0.5, 299.9: 0}),
    ('deit', 300, 1e-3, 5, {152.5: 0.505, 299.9: 0.01}),
    ('deit_384', 30, 5e-6, 5, {17.5: 1, 30: 1}),
    ('deit_l', 300, 4e-3, 5, {152.5: 0.5, 299.9: 0}),
  ],
)
def test_recipes_have_the_learning_rates_of_their_papers(name, num_epochs, peak, warmup_epochs, later):
  # as job.json has it
  section = json.loads(json.dumps(recipes.RECIPES[name]))
  recipe = build(Recipe, section, f'{name}.recipe')
  num_steps = recipe.steps(_NUM_IMAGENET)
  assert 0 <= num_steps - num_epochs * _NUM_IMAGENET / recipe.batch_size < 1
  rate = learning_rate(recipe.optimizer, num_steps)
  shares = {0: 0, warmup_epochs / 2: 0.5, warmup_epochs: 1, **later}
  for epoch, share in shares.items():
    step = round(epoch / num_epochs * num_steps)
    assert float(rate(step)) == pytest.approx(share * peak, rel=0.01, abs=1e-5 * peak), epoch


@pytest.mark.parametrize('study, num_jobs', [('table2', 2), ('table3', 13), ('table4', 6), ('figure6', 2)])
def test_studies_follow_the_jobs_of_imagenet(tmp_path, study, num_jobs):
  config, before = _config('imagenet_study', study), _config('imagenet')
  pipeline.plan(config, tmp_path)
  assert config['order'][: len(before['order'])] == before['order']
  assert len(config['order']) == len(before['order']) + num_jobs + 1
  assert all(config['jobs'][name] == section for name, section in before['jobs'].items())


def test_table_3_has_the_rows_of_the_paper():
  jobs = _config('imagenet_study', 'table3')['jobs']
  rows = [(job['title'], job['size']) for job in jobs.values() if job['job'] == 'classify']
  assert rows == [(row['model'], row['image_size']) for row in paper.tables()['table_3'].select()]


@pytest.mark.slow
def test_models_have_the_sizes_of_their_papers():
  counts = {}
  for title, model, _, size in imagenet_study.TABLE_3.values():
    network = build_one_of(CLASSIFIERS, json.loads(json.dumps(model)), 'model')
    shapes = jax.eval_shape(
      functools.partial(network.init, train=False),
      jax.random.key(0),
      np.zeros((1, size, size, 3), np.float32),
    )['params']
    counts[title, size] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert counts == {
    ('ResNet-50', 224): 25_557_032,
    ('ResNet-101', 224): 44_549_160,
    ('ResNet-152', 224): 60_192_808,
    ('ResNet-RS-50', 160): 35_691_912,
    ('ResNet-RS-101', 160): 63_618_696,
    ('ResNet-RS-101', 190): 63_618_696,
    ('ResNet-RS-152', 224): 86_621_576,
    # without a class token and learned positions
    ('ViT-S/16', 224): 22_050_664 - 384 - 197 * 384,
    ('DeiT-S', 224): 22_050_664,
    ('DeiT-B', 224): 86_567_656,
    ('DeiT-B', 384): 86_859_496,
    ('DeiT-L', 224): 304_326_632,
  }


def test_rows_of_table_3_are_trained_as_published():
  """What the model garden, Beyer et al. (2022) and Touvron et al. (2021) say: see docs/recipes.md."""
  said = {
    name: (
      recipe['epochs'],
      recipe['batch_size'],
      recipe.get('randaugment', {}).get('magnitude'),
      recipe.get('repeats', 1),
      model.get('activation', model.get('pooling')),
      model.get('drop_path_rate', 0.0),
    )
    for name, (_, model, recipe, _) in imagenet_study.TABLE_3.items()
  }
  assert said == {
    'resnet50': (90, 4096, None, 1, None, 0),
    'resnet101': (200, 4096, None, 1, None, 0),
    'resnet152': (200, 4096, None, 1, None, 0),
    'resnet_rs50': (350, 4096, 10, 1, 'swish', 0),
    'resnet_rs101_160': (350, 4096, 15, 1, 'swish', 0),
    'resnet_rs101_190': (350, 4096, 15, 1, 'swish', 0),
    'resnet_rs152': (350, 4096, 15, 1, 'swish', 0),
    'vit_s16': (300, 1024, 10, 1, 'average', 0),
    'deit_s': (300, 1024, 9, 3, None, 0.1),
    'deit_b': (300, 1024, 9, 3, None, 0.1),
    'deit_b_384': (30, 512, 9, 3, None, 0.1),
    'deit_l': (300, 4096, 9, 1, None, 0.1),
  }


def test_every_recipe_is_tested():
  tested = test_recipes_have_the_learning_rates_of_their_papers.pytestmark[0].args[1]
  assert {row[0] for row in tested} == set(recipes.RECIPES)


def test_a_recipe_of_epochs_is_turned_into_one_of_steps():
  recipe = build(Recipe, dict(recipes.CAS, epochs=None, num_steps=1000), 'recipe')
  assert recipe.steps(_NUM_IMAGENET) == recipe.steps(2 * _NUM_IMAGENET) == 1000


def _numbers(section, path=()):
  """The place of every number of a section."""
  if isinstance(section, (dict, list)):
    for key, value in section.items() if isinstance(section, dict) else enumerate(section):
      yield from _numbers(value, (*path, key))
  elif isinstance(section, (int, float)) and not isinstance(section, bool):
    yield path


def _differences(before, after, path=()):
  if isinstance(before, (dict, list)):
    for key, value in before.items() if isinstance(before, dict) else enumerate(before):
      yield from _differences(value, after[key], (*path, key))
  elif before != after:
    yield path


@pytest.mark.parametrize('name', _RUNNABLE)
def test_an_override_changes_one_number_of_one_job(name, photos):
  config = _get_config(name)
  before = json.loads(config.to_json_best_effort())
  for path in _numbers(before):
    *parents, last = path
    if isinstance(last, int):
      # a list of numbers is overridden whole
      continue
    section = config
    for part in parents:
      section = section[part]
    value = section[last]
    section[last] = value + type(value)(1)
    changed = list(_differences(before, json.loads(config.to_json_best_effort())))
    assert changed == [path], path
    section[last] = value
