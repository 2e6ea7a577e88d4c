"""The choice among a training run's checkpoints."""

import json
import shutil
from types import SimpleNamespace

import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.stages import StageUse, Weights, load_stage
from tests import small_pipeline

_LONGER = dict(small_pipeline.TRAIN, num_steps=4, checkpoint_every=1)
_TUNED = {key: value for key, value in _LONGER.items() if key != 'stage'}
_BEFORE = dict(
  embed=small_pipeline.EMBED,
  real=small_pipeline.REAL,
  start=dict(small_pipeline.TRAIN, num_steps=2),
  longer=_TUNED | dict(job='finetune', init='start'),
)
_SELECT = dict(
  job='select',
  text='embed',
  extractor='real',
  weights='longer',
  batch_size=16,
  sampler=small_pipeline.SAMPLER,
  per_class=2,
  prune=True,
  reference={'name': 'digits', 'split': 'validation'},
)


_CAS = {key: small_pipeline.REAL[key] for key in ('model', 'recipe', 'test')} | {'seeds': (0, 1)}


@pytest.fixture(scope='module')
def before(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('select') / 'before'
  for name, section in _BEFORE.items():
    small_pipeline.finish(workdir, name, section)
  return workdir


@pytest.fixture
def workdir(before, tmp_path):
  return shutil.copytree(before, tmp_path / 'run')


def _config(**more):
  return small_pipeline.config(**_BEFORE, select=_SELECT | more)


def _select(workdir, **more):
  pipeline.run(_config(**more), workdir)
  return small_pipeline.result_of(workdir, 'select')


@pytest.fixture
def figures(monkeypatch):
  """Made-up (FID, CAS) by the step of fine-tuning, 0 for what it started from; nothing is drawn.

  The steps that were measured are noted in `measured`.
  """
  found = {0: (4.0, 0.25), 1: (3.0, 0.5), 2: (2.0, 0.75), 3: (1.0, 0.5), 4: (2.0, 0.75)}
  measured = []

  def measure(trials, trial, num_images, on_evaluations):
    step = trial['step'] if trial['run'] == 'longer' else 0
    measured.append(step)
    fid, cas = found[step]
    row = {**trial, 'fid_validation': fid, 'is': 1.0, 'num_samples': num_images}
    if trials.cas:
      top_1 = {'mean': cas, 'std': 0.125, 'num': 2}
      row['cas'] = {'top_1': top_1, 'per_class': [cas] * 10, 'confusion': [[0] * 10] * 10}
    path = trials.folder.path / f'trials/run_{trial["run"]}-step_{trial["step"]}'
    path.mkdir(parents=True)
    write_json(path / f'metrics_{num_images}.json', row)

  monkeypatch.setattr('imagenet_synth.evaluation.trials.Trials._measure', measure)
  return SimpleNamespace(found=found, measured=measured)


def _kept(workdir):
  return sorted(int(path.name) for path in (workdir / 'longer/checkpoints').iterdir())


def test_the_images_that_it_chooses_by_are_its_reference():
  used = small_pipeline.build_section(_SELECT).real_images()
  assert {key: str(dataset) for key, dataset in used.chosen_by.items()} == {'reference': 'digits validation'}
  assert not used.trained_on and not used.tested_on


def test_select_keeps_the_best_checkpoint_and_the_last(workdir):
  result = _select(workdir)
  steps = {row['step']: row['fid_validation'] for row in result['curve']}
  assert sorted(steps) == [1, 2, 3, 4]
  best = min(steps, key=steps.get)
  assert (result['run'], result['step']) == ('longer', best)
  assert _kept(workdir) == result['checkpoints'] == sorted({best, 4})
  assert all(row['num_samples'] == 20 for row in result['curve'])
  # what others open is the training job's folder, at the step that was chosen
  weights = Weights('select').open(JobFolder(workdir, 'generate', {}))
  assert weights.path == workdir / 'longer' and weights.step == best and weights.kind == 'finetune'
  # the pictures of a checkpoint stay, the images go
  assert sorted(path.name for path in (workdir / 'select/trials/run_longer-step_3').iterdir()) == [
    'metrics_20.json',
    'samples.png',
  ]


def test_a_killed_select_measures_the_checkpoints_that_are_left(workdir, figures, capsys):
  """The figures of a checkpoint are written when it has been measured; it is not sampled again then."""
  del figures.found[3]
  with pytest.raises(KeyError):
    _select(workdir, prune=False)
  assert 'select: 4 trials of 20 images, 40 evaluations of the network each, 160' in capsys.readouterr().err
  figures.found[3] = (1.0, 0.5)
  result = _select(workdir, prune=False)
  assert figures.measured == [1, 2, 3, 3, 4]
  row = lambda step, fid: {'run': 'longer', 'step': step, 'fid_validation': fid, 'is': 1.0, 'num_samples': 20}
  assert result['curve'] == [row(1, 3.0), row(2, 2.0), row(3, 1.0), row(4, 2.0)]
  assert (result['choose'], result['step']) == ('fid', 3)
  assert _kept(workdir) == result['checkpoints'] == [1, 2, 3, 4]


def test_by_cas_the_highest_mean_is_chosen_of_equals_the_earliest(workdir, figures):
  result = _select(workdir, cas=_CAS, choose='cas')
  assert (result['choose'], result['step']) == ('cas', 2)
  assert [row['cas']['top_1']['mean'] for row in result['curve']] == [0.5, 0.75, 0.5, 0.75]
  # with its spread; what is told of each class stays in the trial's own file
  assert result['curve'][0]['cas'] == {'top_1': {'mean': 0.5, 'std': 0.125, 'num': 2}}
  (path,) = (workdir / 'select/trials/run_longer-step_1').iterdir()
  assert len(json.loads(path.read_text())['cas']['per_class']) == 10
  assert _kept(workdir) == result['checkpoints'] == [2, 4]


def test_cas_is_measured_on_a_checkpoint_s_samples_where_fid_chooses(workdir, monkeypatch):
  trained_on = []

  def score(config, source, source_names, class_names, size, path, folder):
    trained_on.append((path.relative_to(folder.path).as_posix(), len(source), size))
    assert [source[i]['label'] for i in range(10)] == list(range(10)) and len(class_names) == 10
    return {'top_1': {'mean': 0.5, 'std': None, 'num': 1}}

  monkeypatch.setattr('imagenet_synth.evaluation.trials.classification_accuracy_score', score)
  result = _select(workdir, cas=_CAS)
  assert result['step'] == min(result['curve'], key=lambda row: row['fid_validation'])['step']
  assert trained_on == [(f'trials/run_longer-step_{step}/cas_20', 20, 8) for step in (1, 2, 3, 4)]


def _handed_on(workdir):
  """The chosen weights as a generate job has them: their origin."""
  folder = JobFolder(workdir, 'generate', {})
  trained, origin = load_stage(StageUse(Weights('select')), folder)
  return {name: origin[name] for name in ('run', 'kind', 'step', 'checkpoint_hash')}, folder.origin['inputs']


def test_what_fine_tuning_started_from_can_win(workdir, figures):
  figures.found[0] = (0.5, 0.25)
  result = _select(workdir, others=('start',))
  assert [(row['run'], row['step']) for row in result['curve']] == [
    ('start', 2),
    *(('longer', step) for step in (1, 2, 3, 4)),
  ]
  # what is handed on is the run that made it, not fine-tuned, with all of its own checkpoints
  assert (result['run'], result['kind'], result['step'], result['checkpoints']) == (
    'start',
    'pretrain',
    2,
    [1, 2],
  )
  of_start = small_pipeline.result_of(workdir, 'start')
  assert result['stage'] == of_start['stage'] and result['text_size'] == of_start['text_size']
  origin, inputs = _handed_on(workdir)
  assert origin == {
    'run': 'start',
    'kind': 'pretrain',
    'step': 2,
    'checkpoint_hash': of_start['checkpoint_hash'],
  }
  assert sorted(inputs) == ['select', 'start']
  # of the fine-tuning, the last checkpoint alone is kept; of its start, all
  assert _kept(workdir) == [4]
  assert {path.name for path in (workdir / 'start/checkpoints').iterdir()} == {'1', '2'}
  recorded = json.loads((workdir / 'select/job.json').read_text())['origin']['inputs']
  assert {'start', 'longer'} <= recorded.keys()


def test_what_fine_tuning_started_from_can_lose(workdir, figures):
  result = _select(workdir, others=('start',), cas=_CAS, choose='cas')
  assert (result['run'], result['kind'], result['step']) == ('longer', 'finetune', 2)
  assert _handed_on(workdir)[0]['kind'] == 'finetune'
  assert {path.name for path in (workdir / 'start/checkpoints').iterdir()} == {'1', '2'}


def test_workers_share_the_checkpoints(workdir, figures):
  config = _config(others=('start',))
  with pytest.raises(Unfinished, match='worker 1 of 2 .* of 5 trials of 20 images are left'):
    pipeline.run(config, workdir, Worker(1, 2))
  assert figures.measured == [1, 3]
  pipeline.run(config, workdir, Worker(0, 2))
  assert figures.measured == [1, 3, 0, 2, 4]
  assert small_pipeline.result_of(workdir, 'select')['step'] == 3


@pytest.mark.parametrize(
  'more, message',
  [
    (dict(choose='cas'), "select.choose is 'cas', but the section cas is missing"),
    (dict(others=('longer',)), r'select.others\[0\] is longer, whose checkpoints are compared already'),
    (dict(others=('wider',)), r'select.others\[0\] is wider, whose stage is not that of longer'),
    (dict(others=('start', 'start')), r'select.others has .* twice'),
    (
      dict(cas=_CAS | {'recipe': dict(_CAS['recipe'], batch_size=12)}),
      'cas.recipe.batch_size is 12, must be',
    ),
  ],
)
def test_what_cannot_be_compared_is_refused(more, message, workdir):
  wider = dict(small_pipeline.TRAIN, stage=dict(small_pipeline.STAGE, size=16))
  config = small_pipeline.config(**_BEFORE, wider=wider, select=_SELECT | more)
  with pytest.raises(InputError, match=message):
    pipeline.plan(config, workdir)


def test_the_stage_and_the_text_of_what_may_be_chosen_are_known_before(workdir):
  known = pipeline.plan(_config(others=('start',)), workdir).known
  assert known['select'].trained_stage(known) == known['start'].stage
  assert str(known['select'].trained_text(known)) == 'embed'
