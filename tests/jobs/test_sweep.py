"""Sweeps: alone, by several workers, with successive halving."""

import csv
import shutil

import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.stages import StageUse, Sweep, Weights
from tests import small_pipeline

_GRID = {'guidance': (1.0, 4.0), 'sampler': ('ddpm', 'ddim')}


def _sweep(**more):
  digits = {'name': 'digits'}
  return dict(
    job='sweep',
    text='embed',
    extractor='real',
    stages=[{'weights': 'train', 'sampler': small_pipeline.SAMPLER}],
    grid=_GRID,
    per_class=4,
    batch_size=16,
    choose='fid_train',
    **more,
    references={'train': digits | {'split': 'train[:200]'}, 'validation': digits | {'split': 'validation'}},
  )


_BEFORE = dict(embed=small_pipeline.EMBED, train=small_pipeline.TRAIN, real=small_pipeline.REAL)


def _config(**jobs):
  return small_pipeline.config(**_BEFORE, **jobs)


@pytest.fixture(scope='module')
def before(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('sweep') / 'before'
  small_pipeline.finish(workdir, 'embed', small_pipeline.EMBED)
  small_pipeline.finish(workdir, 'train', small_pipeline.TRAIN, heeds_text=False)
  small_pipeline.finish(workdir, 'real', small_pipeline.REAL)
  return workdir


@pytest.fixture(scope='module')
def whole(before):
  """A finished sweep, not to be changed."""
  workdir = shutil.copytree(before, before.with_name('whole'))
  pipeline.run(_config(sweep=_sweep()), workdir)
  return workdir


@pytest.fixture
def workdir(before, tmp_path):
  return shutil.copytree(before, tmp_path / 'run')


def _result(workdir):
  return small_pipeline.result_of(workdir, 'sweep')


def test_all_combinations_are_tried_and_the_best_one_is_told(whole):
  result = _result(whole)
  assert [(row['guidance'], row['sampler']) for row in result['rows']] == [
    (1.0, 'ddpm'),
    (1.0, 'ddim'),
    (4.0, 'ddpm'),
    (4.0, 'ddim'),
  ]
  best = min(result['rows'], key=lambda row: row['fid_train'])
  assert result['best'] == {name: best[name] for name in _GRID}
  # an untrained network does not heed the text, hence not guidance
  assert len({row['fid_train'] for row in result['rows']}) == 2
  assert all(row['num_samples'] == 40 for row in result['rows'])
  assert result['num_drawn'] == result['num_without_halving'] == 160
  with open(whole / 'sweep/results.csv') as file:
    written = list(csv.DictReader(file))
  assert [float(row['fid_train']) for row in written] == [row['fid_train'] for row in result['rows']]
  assert [row['sampler'] for row in written] == [row['sampler'] for row in result['rows']]
  trial = whole / 'sweep/trials/guidance_4-sampler_ddim'
  assert sorted(path.name for path in trial.iterdir()) == ['metrics_40.json', 'samples.png']
  with Image.open(trial / 'samples.png') as picture:
    assert picture.size == (10 * 66 - 2, 4 * 66 - 2)


def test_what_stands_beside_the_figures(whole):
  result = _result(whole)
  assert result['extractor'].startswith('real at 8x8 (weights ')
  assert result['preprocessing'] == 'bilinear to 8x8, rounded to uint8'
  train = result['references']['train']
  assert train['num_images'] == 200 and train['size'] == 8 and len(train['hash']) == 16
  assert train['dataset']['split'] == 'train[:200]' and train['rounding'] == 'uint8'


def test_the_cost_is_told_before(workdir, capsys):
  pipeline.run(_config(sweep=_sweep()), workdir)
  assert (
    'sweep: 4 trials of 40 images, 80 to 160 evaluations of the network each, 480 in all'
    in capsys.readouterr().err
  )


def test_an_interval_of_guidance_is_swept_like_a_number(workdir):
  grid = dict(guidance=(2.0,), guidance_interval=(None, (-3.0, 2.5)), sampler=('dpmpp_2m',))
  pipeline.run(_config(sweep=_sweep() | dict(grid=grid)), workdir)
  result = _result(workdir)
  assert [row['guidance_interval'] for row in result['rows']] == [None, [-3.0, 2.5]]
  names = {path.name for path in (workdir / 'sweep/trials').iterdir()}
  of_interval = 'guidance_2-guidance_interval_-3_to_2.5-sampler_dpmpp_2m'
  assert names == {'guidance_2-guidance_interval_None-sampler_dpmpp_2m', of_interval}
  # typed as a sampler has them
  found = StageUse(Weights('train'), tuned_by=Sweep('sweep')).tuned(JobFolder(workdir, 'generate', {}))
  assert found['guidance_interval'] in (None, (-3.0, 2.5)) and found['sampler'] == 'dpmpp_2m'


def test_workers_share_the_trials(whole, workdir):
  config = _config(sweep=_sweep())
  for index in (1, 0):
    with pytest.raises(Unfinished, match=f'worker {index} of 3 .* of 4 trials of 40 images are left'):
      pipeline.run(config, workdir, Worker(index, 3))
  pipeline.run(config, workdir, Worker(2, 3))
  assert _result(workdir) == _result(whole)


def test_halving_weeds_out_and_the_rest_get_all_samples(whole, workdir):
  pipeline.run(_config(sweep=_sweep(halving={'per_class': (1, 2), 'keep': 0.5})), workdir)
  result, expected = _result(workdir), {str(_settings(row)): row for row in _result(whole)['rows']}
  assert sorted(row['num_samples'] for row in result['rows']) == [10, 10, 20, 40]
  assert result['num_drawn'] == 80 and result['num_without_halving'] == 160
  (last,) = [row for row in result['rows'] if row['num_samples'] == 40]
  # the images are those of the whole grid's trial
  assert last['fid_train'] == pytest.approx(expected[str(_settings(last))]['fid_train'], rel=1e-4)
  assert result['best'] == _settings(last)


def test_by_cas_the_trial_of_the_highest_mean_is_the_best_one(whole, workdir, monkeypatch):
  """Where classifiers learn more from a trial, however far its FID is off."""
  expected = _result(whole)
  worst = max(expected['rows'], key=lambda row: row['fid_train'])
  trained_on = []

  def score(config, source, source_names, class_names, size, path, folder):
    trained_on.append(path.relative_to(folder.path).as_posix())
    is_worst = f'sampler_{worst["sampler"]}' in str(path)
    return {'top_1': {'mean': 0.75 if is_worst else 0.5, 'std': 0.125, 'num': 2}}

  monkeypatch.setattr('imagenet_synth.evaluation.trials.classification_accuracy_score', score)
  monkeypatch.setattr('imagenet_synth.jobs.sweep.classification_accuracy_score', score)
  cas = {key: small_pipeline.REAL[key] for key in ('model', 'recipe', 'test')} | {'seeds': (0, 1)}
  grid = {'sampler': ('ddpm', 'ddim')}
  pipeline.run(_config(sweep=_sweep(cas=cas) | {'choose': 'cas', 'grid': grid}), workdir)
  result = _result(workdir)
  assert result['best'] == result['settings'] == {'sampler': worst['sampler']}
  assert result['cas_real'] == {'top_1': {'mean': 0.5, 'std': 0.125, 'num': 2}}
  assert trained_on == ['trials/sampler_ddpm/cas_40', 'trials/sampler_ddim/cas_40', 'real']
  with open(workdir / 'sweep/results.csv') as file:
    assert {row['sampler']: row['cas'] for row in csv.DictReader(file)}[worst['sampler']] == '0.75'


@pytest.mark.parametrize(
  'choose, images',
  [
    ('cas', {'cas.test': 'test[:100]'}),
    ('fid_train', {'references.train': 'train[:200]'}),
    ('fid_validation', {'references.validation': 'validation'}),
    ('fid_published', {}),
  ],
)
def test_the_images_that_it_chooses_by_are_those_of_the_figure(choose, images):
  cas = {key: small_pipeline.REAL[key] for key in ('model', 'recipe', 'test', 'seeds')}
  statistics = {'published': {'path': 'adm.npz', 'num_images': 100}}
  config = small_pipeline.build_section(_sweep(cas=cas, statistics=statistics) | {'choose': choose})
  used = config.real_images()
  assert {key: dataset.split for key, dataset in used.chosen_by.items()} == images
  assert not used.trained_on and not used.tested_on


def _settings(row):
  return {name: row[name] for name in _GRID}


@pytest.mark.parametrize(
  'more, message',
  [
    ({'halving': {'per_class': (4,)}}, r'must ascend, they are \[4, 4\]'),
    ({'halving': {'per_class': (2,), 'keep': 1.0}}, 'halving.keep is 1.0, must be .* less than 1'),
  ],
)
def test_bad_halving_is_named(more, message, workdir):
  with pytest.raises(InputError, match=message):
    pipeline.run(_config(sweep=_sweep(**more)), workdir)


@pytest.mark.parametrize(
  'grid, message',
  [
    ({'percentile': (1.0,)}, 'grid.percentile cannot be swept; known: guidance'),
    ({'sampler': ('euler',)}, "grid.sampler is 'euler', must be one of 'ddpm', 'ddim'"),
    ({'num_steps': (2.5,)}, 'grid.num_steps is 2.5, must be an integer'),
    (
      {'guidance_interval': ((2.0, -1.0),)},
      r'grid.guidance_interval is \[2.0, -1.0\], must be the least and',
    ),
    ({'guidance': (2, 2.0)}, 'grid.guidance has a value twice'),
  ],
)
def test_a_bad_grid_is_named(grid, message, workdir):
  with pytest.raises(InputError, match=message):
    pipeline.run(_config(sweep=_sweep() | {'grid': grid}), workdir)
