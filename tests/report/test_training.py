"""What the report says of training: rows, losses and checkpoints of hand-made results."""

import json

import pytest

from imagenet_synth.report.page import Picture, Table
from imagenet_synth.report.training import selection, training
from tests.report import hand_made
from tests.report.hand_made import blocks, by_column, classify, mixture, results, select


def test_there_is_no_section_without_a_job_that_it_could_be_about():
  nothing = results(hand_made.job('embed', 'embed', {}, {}))
  assert training(nothing) is selection(nothing) is None


def _losses(folder, losses):
  folder.mkdir(parents=True)
  lines = [{'step': step, 'loss': loss} for step, loss in losses.items()]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def _trained(tmp_path, kind, name, losses, num_steps=100, **more):
  path = tmp_path / name
  _losses(path, losses)
  config = {
    'dataset': {'name': 'digits'},
    'optimizer': {'name': 'adam'},
    'num_steps': num_steps,
    'batch_size': 2048,
  }
  return hand_made.job(kind, name, {'num_params': 1234567}, config | more, path, seconds=90.4)


def test_a_row_for_each_stage_with_the_loss_of_the_last_quarter(tmp_path):
  base = _trained(tmp_path, 'pretrain', 'pretrain_base', {25: 9.0, 75: 5.0, 76: 0.5, 100: 0.25})
  blend = [{'dataset': {'name': 'glyphs'}, 'share': 1 / 3}, {'dataset': {'name': 'web'}, 'share': 0.25}]
  tuned = _trained(
    tmp_path, 'finetune', 'finetune_base', {1000: 1.0}, num_steps=1000, init='pretrain_base', blend=blend
  )
  section = training(results(base, tuned))
  assert section.title == 'Training'
  (table,) = blocks(section, Table)
  rows = by_column(table)
  assert rows[0] == {
    'Stage': 'pretrain_base',
    'Starts from': 'random weights',
    'Data': 'digits',
    'Optimizer': 'adam',
    'Steps': '100',
    'Batch size': '2,048',
    'Parameters': '1,234,567',
    'Loss': '0.3750',
    'Time': '1.5 min',
  }
  assert (rows[1]['Starts from'], rows[1]['Steps'], rows[1]['Loss']) == ('pretrain_base', '1,000', '1.0000')
  assert rows[1]['Data'] == 'digits, glyphs (33.3 %), web (25 %)'
  assert table.note.startswith('Loss: mean over the last quarter of the steps.')


def test_the_losses_of_stages_are_drawn_and_said(tmp_path):
  base = _trained(tmp_path, 'pretrain', 'pretrain_base', {25: 9.0, 75: 5.0, 100: 0.25})
  (picture,) = blocks(training(results(base)), Picture)
  assert picture.name == 'loss_of_stages' and picture.jobs == ['pretrain_base']
  assert [line.get_xydata().tolist() for line in picture.image.axes[0].lines] == [
    [[25, 9], [75, 5], [100, 0.25]]
  ]
  assert picture.alt.endswith('from their first value to their last: pretrain_base: 9 to 0.25.')


def test_a_long_curve_is_thinned_to_means_of_its_steps(tmp_path):
  base = _trained(tmp_path, 'pretrain', 'base', {step: step % 10 for step in range(1, 1001)}, num_steps=1000)
  (picture,) = blocks(training(results(base)), Picture)
  points = picture.image.axes[0].lines[0].get_xydata()
  assert points.tolist() == [[10 * i, 4.5] for i in range(1, 101)]


def test_the_loss_of_a_classifier_is_a_mean_over_its_seeds(tmp_path):
  job = classify(path=tmp_path, real=mixture(600), both=mixture(600, 600), control=mixture(6, num_stand_in=6))
  for run in job.result['runs']:
    if run['mixture'] != 'control':
      _losses(tmp_path / run['path'], {50: 2.0 + run['seed'], 100: 1.0})
  (picture,) = blocks(training(results(job)), Picture)
  assert picture.name == 'loss_of_classifiers'
  assert [line.get_xydata().tolist() for line in picture.image.axes[0].lines] == [[[50, 3], [100, 1]]] * 2
  assert picture.alt.endswith('classify: real 3 to 1, real + synthetic 3 to 1.')


_MEASURED = (
  '600 samples, features of classify_real at 32x32 (weights 0a). Noise floor, the FID that as many real '
  'images would have: validation 0.625.'
)


def test_the_chosen_checkpoint_is_strong_and_named():
  section = selection(results(select(step=200, at_100=3.0, at_200=1.234, at_300=150.0)))
  assert section.title == 'Checkpoints, selected'
  (table,) = section.blocks
  assert table.header == ['Step', 'Validation FID', 'Inception Score']
  assert table.rows == [['100', '3', '8.5'], ['200', '1.23', '8.5'], ['300', '150', '8.5']]
  assert table.strong == [1]
  assert table.note == (f'Step 200 is used on. {_MEASURED}')
  assert table.caption == 'select_base: checkpoints of finetune_base, chosen by FID'


def test_checkpoints_closer_than_the_noise_floor_are_undecided():
  # the floor is 0.625
  (table,) = selection(results(select(step=2, at_1=1.5, at_2=1.0, at_3=1.625))).blocks
  assert table.strong == [0, 1]
  assert (
    'Step 2 is used on. Undecided between 2: their FID differs by less than the noise floor. 600'
    in table.note
  )


def _with_cas(job, *cas):
  for point, (mean, std) in zip(job.result['curve'], cas, strict=True):
    point['cas'] = {'top_1': hand_made.spread(mean, std)}
  return job


def test_cas_stands_beside_fid_and_decides_where_it_chooses():
  cas = ((0.5, 0.01), (0.75, 0.0625), (0.7, 0.0))
  (by_fid,) = selection(results(_with_cas(select(step=1, at_1=1.0, at_2=3.0, at_3=2.0), *cas))).blocks
  assert by_fid.header == ['Step', 'Validation FID', 'Inception Score', 'CAS (%)']
  assert [row[-1] for row in by_fid.rows] == ['50.00 ± 1.00', '75.00 ± 6.25', '70.00 ± 0.00']
  assert by_fid.strong == [0] and by_fid.note.startswith('Step 1 is used on. 600')
  by_cas = selection(
    results(_with_cas(select(step=2, choose='cas', at_1=1.0, at_2=3.0, at_3=2.0), *cas))
  ).blocks[0]
  assert by_cas.rows == by_fid.rows and by_cas.strong == [1, 2]
  assert (
    'Step 2 is used on. Undecided between 2: their CAS differs by less than the spread over seeds. 600'
  ) in by_cas.note


@pytest.mark.parametrize(
  'chosen, used', [(('pretrain_base', 9), '9 of pretrain_base'), (('finetune_base', 2), '2')]
)
def test_weights_of_another_run_are_named_with_it(chosen, used):
  job = select(at_9=1.0, at_1=3.0, at_2=2.0)
  job.result['curve'][0]['run'] = 'pretrain_base'
  job.result['run'], job.result['step'] = chosen
  (table,) = selection(results(job)).blocks
  assert [row[0] for row in table.rows] == ['9 of pretrain_base', '1', '2']
  assert table.note.startswith(f'Step {used} is used on.')


def test_each_select_job_has_a_table():
  section = selection(results(select(at_2=1.0), select('select_sr16', 'finetune_sr16', at_2=1.0)))
  assert [table.caption.split(',')[0] for table in section.blocks] == [
    'select_base: checkpoints of finetune_base',
    'select_sr16: checkpoints of finetune_sr16',
  ]


def test_a_warning_of_few_samples_and_a_doubt_about_the_extractor_stand_below_the_table():
  job = select(at_2=1.0)
  job.result['curve'][0]['warning'] = 'computed from 600 samples'
  job.result['doubt'] = 'It gets 11.0 % right'
  note = selection(results(job)).blocks[0].note
  assert 'features of classify_real at 32x32 (weights 0a); computed from 600 samples. Noise floor' in note
  assert note.endswith('validation 0.625. It gets 11.0 % right.')
