"""Sweeps: alone, by several workers, with successive halving, killed on the way; and evaluation."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.records import ShardSource
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.frechet import Moments

_GRID = {'guidance': (1.0, 4.0), 'sampler': ('ddpm', 'ddim')}
_STAGE = {'weights': 'train', 'sampler': {'num_steps': 2, 'thresholding': 'static'}}


def _sweep(**more):
  digits = {'name': 'digits'}
  return dict(
    job='sweep',
    text='embed',
    extractor='real',
    stages=[_STAGE],
    grid=_GRID,
    per_class=4,
    batch_size=16,
    choose='fid_train',
    **more,
    references={'train': digits | {'split': 'train[:200]'}, 'validation': digits | {'split': 'validation'}},
  )


def _config(**jobs):
  digits = dict(name='digits', split='train[:200]')
  network = dict(
    type='unet', channels=4, channel_multiples=(1,), num_res_blocks=1, attention_sizes=(), head_size=4
  )
  random = dict(vocab_size=384, width=8, num_layers=1, num_heads=1, head_size=8, mlp_size=8)
  adam = dict(name='adam', learning_rate=1e-3)
  resnet = dict(type='resnet', num_classes=10, block='basic', width=8, stage_sizes=(1,), stem='small')
  before = {
    'embed': dict(
      job='embed', dataset=digits, prompts='classes', encoder=dict(random=random), max_length=8, batch_size=16
    ),
    'train': dict(
      job='pretrain',
      text='embed',
      dataset=digits,
      num_steps=1,
      batch_size=8,
      checkpoint_every=1,
      optimizer=adam,
      stage=dict(size=8, channels=1, network=network),
      preview=dict(prompts=('one',), columns=1, sampler=_STAGE['sampler']),
    ),
    'real': dict(
      job='classify',
      model=resnet,
      size=8,
      mixtures=dict(real=dict(real=True)),
      real=digits,
      test=dict(name='digits', split='test[:100]'),
      seeds=(0,),
      recipe=dict(optimizer=adam, num_steps=2, batch_size=16),
    ),
  }
  jobs = before | jobs
  return json.loads(json.dumps(dict(jobs=jobs, order=tuple(jobs))))


@pytest.fixture(scope='module')
def before(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('sweep') / 'before'
  pipeline.run(_config(), workdir)
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


def _result(workdir, name='sweep'):
  return json.loads((workdir / name / 'job.json').read_text())['result']


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
  assert (whole / 'sweep/results.csv').read_text().count('\n') == 5
  trial = whole / 'sweep/trials/guidance_4-sampler_ddim'
  assert sorted(path.name for path in trial.iterdir()) == ['metrics_40.json', 'samples.png']
  with Image.open(trial / 'samples.png') as picture:
    assert picture.size == (10 * 66 - 2, 4 * 66 - 2)


def test_select_keeps_the_best_checkpoint_and_the_last(workdir):
  train = _config()['jobs']['train'] | {'num_steps': 4}
  select = dict(
    job='select',
    text='embed',
    extractor='real',
    weights='longer',
    batch_size=16,
    sampler=_STAGE['sampler'],
    per_class=2,
    prune=True,
    reference={'name': 'digits', 'split': 'validation'},
  )
  pipeline.run(_config(longer=train, select=select), workdir)
  result = _result(workdir, 'select')
  steps = {row['step']: row['fid_validation'] for row in result['curve']}
  assert sorted(steps) == [1, 2, 3, 4]
  best = min(steps, key=steps.get)
  assert (result['run'], result['step']) == ('longer', best)
  left = sorted(int(path.name) for path in (workdir / 'longer/checkpoints').iterdir())
  assert left == sorted({best, 4})


def test_what_stands_beside_the_figures(whole):
  result = _result(whole)
  assert result['extractor'].startswith('real at 8x8 (weights ')
  assert result['preprocessing'] == 'bilinear to 8x8, rounded to uint8'
  train = result['references']['train']
  assert train['num_images'] == 200 and train['size'] == 8 and len(train['hash']) == 16
  assert train['dataset']['split'] == 'train[:200]' and train['rounding'] == 'uint8'
  with np.load(
    next(
      path
      for path in (whole / 'references').iterdir()
      if np.load(path)['count_0'] + np.load(path)['count_1'] == 200
    )
  ) as kept:
    halves = [Moments(int(kept[f'count_{i}']), kept[f'mean_{i}'], kept[f'scatter_{i}']) for i in (0, 1)]
  assert 80 < halves[0].count < 120
  assert train['floor'] == frechet.frechet_distance(*halves) > 0


def test_the_cost_is_told_before(workdir, capsys):
  pipeline.run(_config(sweep=_sweep()), workdir)
  assert (
    'sweep: 4 trials of 40 images, 80 to 160 evaluations of the network each, 480 in all'
    in capsys.readouterr().err
  )


def test_workers_share_the_trials(whole, workdir):
  config = _config(sweep=_sweep())
  for index in (1, 0):
    with pytest.raises(Unfinished, match=f'worker {index} of 3 .* of 4 trials of 40 images are left'):
      pipeline.run(config, workdir, Worker(index, 3))
  pipeline.run(config, workdir, Worker(2, 3))
  assert _result(workdir) == _result(whole)


def test_a_killed_trial_goes_on_from_its_shards(whole, workdir, monkeypatch):
  monkeypatch.setattr('imagenet_synth.evaluation.fixed_samples._CHUNK', 16)
  monkeypatch.setattr('imagenet_synth.evaluation.trials.measure', _killed)
  with pytest.raises(KeyboardInterrupt):
    pipeline.run(_config(sweep=_sweep()), workdir)
  shards = sorted((workdir / 'sweep/trials/guidance_1-sampler_ddpm/images').iterdir())
  assert [path.name.split('.')[0] for path in shards] == [
    '000000000-000000016',
    '000000016-000000032',
    '000000032-000000040',
  ]
  shards[1].unlink()
  kept = shards[0].stat().st_mtime_ns
  with pytest.raises(KeyboardInterrupt):
    pipeline.run(_config(sweep=_sweep()), workdir)
  assert shards[0].stat().st_mtime_ns == kept
  monkeypatch.undo()
  monkeypatch.setattr('imagenet_synth.evaluation.fixed_samples._CHUNK', 16)
  pipeline.run(_config(sweep=_sweep()), workdir)
  for row, expected in zip(_result(workdir)['rows'], _result(whole)['rows'], strict=True):
    assert row['fid_train'] == pytest.approx(expected['fid_train'], rel=1e-4)


def _killed(*args):
  raise KeyboardInterrupt


def test_halving_weeds_out_and_the_rest_get_all_samples(whole, workdir):
  pipeline.run(_config(sweep=_sweep(halving={'per_class': (1, 2), 'keep': 0.5})), workdir)
  result, expected = _result(workdir), {str(_settings(row)): row for row in _result(whole)['rows']}
  assert sorted(row['num_samples'] for row in result['rows']) == [10, 10, 20, 40]
  assert result['num_drawn'] == 80 and result['num_without_halving'] == 160
  (last,) = [row for row in result['rows'] if row['num_samples'] == 40]
  # the images are those of the whole grid's trial
  assert last['fid_train'] == pytest.approx(expected[str(_settings(last))]['fid_train'], rel=1e-4)
  assert result['best'] == _settings(last)


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
  ],
)
def test_a_bad_grid_is_named(grid, message, workdir):
  with pytest.raises(InputError, match=message):
    pipeline.run(_config(sweep=_sweep() | {'grid': grid}), workdir)


def test_evaluation_of_shards_of_an_npz_and_of_files_is_the_same(workdir):
  generate = dict(
    job='generate',
    text='embed',
    dataset=dict(name='digits', split='train[:200]'),
    per_class=5,
    shard_size=20,
    batch_size=16,
    stages=[_STAGE],
  )
  jobs = {
    'generate': generate,
    'npz': dict(job='export', samples='generate', size=8, form='adm'),
    'files': dict(job='export', samples='generate', size=8, form='folder'),
  }
  evaluate = dict(job='evaluate', sizes=(8,), extractor='real', references=_sweep()['references'])
  statistics = {'itself': {'path': str(workdir / 'shards/statistics_8.npz'), 'num_images': 50}}
  jobs |= {
    'shards': dict(evaluate, samples='generate'),
    'by_npz': dict(
      evaluate,
      path=str(workdir / 'npz/samples.npz'),
      references=evaluate['references'] | {'statistics': statistics},
    ),
    'by_files': dict(evaluate, path=str(workdir / 'files/train')),
  }
  pipeline.run(_config(**jobs), workdir)
  with np.load(workdir / 'npz/samples.npz') as arrays:
    assert arrays['arr_0'].shape == (50, 8, 8, 3) and arrays['arr_0'].dtype == np.uint8
    np.testing.assert_array_equal(arrays['arr_1'], np.arange(50) % 10)
    source = ShardSource(sorted((workdir / 'generate/8').glob('*.tfrecord')))
    np.testing.assert_array_equal(arrays['arr_0'][7, ..., :1], source[7]['image'])
  shards, npz, files = (_result(workdir, name)['sizes']['8'] for name in ('shards', 'by_npz', 'by_files'))
  assert npz['fid_itself'] == pytest.approx(0, abs=1e-9)
  for name in ('fid_train', 'fid_validation', 'precision', 'recall'):
    assert shards[name] == npz[name] == pytest.approx(files[name], rel=1e-9)
