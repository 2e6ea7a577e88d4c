"""What the report says of the generator: rows, notes and pictures of hand-made results."""

import json

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.config import build
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.records import Record, write_shard
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.report.generator import quality, sample_grid, samples, selection, sweeps, training
from imagenet_synth.report.page import Paragraph, Picture, Table
from tests.report import hand_made
from tests.report.hand_made import blocks, evaluate, figures, points, results, select, sweep

_NOTHING = results(hand_made.job('embed', 'embed', {}, {}))
_SIZE = 16


@pytest.mark.parametrize('section', [samples, quality, sweeps, selection, training])
def test_there_is_no_section_without_a_job_that_it_could_be_about(section):
  assert section(_NOTHING) is None


@pytest.fixture
def generated(tmp_path):
  """A function of generate jobs, as (name, images of each class, kind of the base, grey) -> the results.

  Real images are 8 of the class 'ant', 3 of 'bee'; the second of the bees is upright.
  """
  for label, (name, num) in enumerate((('ant', 8), ('bee', 3))):
    folder = tmp_path / 'real/train' / name
    folder.mkdir(parents=True)
    for number in range(num):
      size = (_SIZE, 2 * _SIZE) if name == 'bee' and number == 1 else (_SIZE, _SIZE)
      Image.new('L', size, 10 * label + number).save(folder / f'{number}.png')

  def make(*jobs):
    dataset = {'name': 'folder', 'split': 'train', 'directory': str(tmp_path / 'real')}
    made = []
    for name, counts, kind, grey in jobs:
      path = tmp_path / name
      labels, indices = class_plan(counts)
      records = [
        Record(np.full((_SIZE, _SIZE, 3), grey + label, np.uint8), label, str(label), index, 0, '', [])
        for label, index in zip(labels.tolist(), indices.tolist())
      ]
      write_shard(path / f'{_SIZE}/train-00000-of-00001.tfrecord', records)
      (path / 'manifest.json').write_text(json.dumps({'class_names': ['ant', 'bee']}))
      result = {'stages': [{'kind': kind}], 'sizes': [8, _SIZE], 'class_counts': list(counts)}
      made.append(hand_made.job('generate', name, result, {'dataset': dataset, 'seed': len(made)}, path))
    return results(*made, folder=JobFolder(tmp_path, 'report', {}))

  return make


def _first_of(found, label):
  """The greys of the first six real images of a class, in the order of the data set."""
  source = build(DatasetConfig, found.jobs[0].config['dataset'], 'dataset').open(found.folder)
  mine = [example for example in (source[i] for i in range(len(source))) if example['label'] == label]
  return [int(example['image'][0, 0, 0]) for example in mine[:6]]


def _greys(grid, num_groups):
  """The grey in the middle of each tile of a grid, by rows; between two groups there is a blank one."""
  pixels, num_columns = np.asarray(grid)[..., 0], 7 * num_groups - 1
  left = pixels.shape[1] - num_columns * (_SIZE + 4)
  rows = []
  for row in range(2):
    y = pixels.shape[0] - (2 - row) * (_SIZE + 4) + _SIZE // 2
    rows.append([int(pixels[y, left + column * (_SIZE + 4) + _SIZE // 2]) for column in range(num_columns)])
  return rows


def test_samples_are_the_first_of_each_class_real_ones_first_and_finetuned_ones_before_others(generated):
  found = generated(('raw', (7, 7), 'pretrain', 200), ('tuned', (7, 7), 'finetune', 100))
  greys = _greys(sample_grid(found, ['ant', 'bee']), num_groups=3)
  ant, bee = (_first_of(found, label) for label in (0, 1))
  assert len(ant) == 6 and len(bee) == 3
  blank = [255]
  assert greys[0] == ant + blank + [100] * 6 + blank + [200] * 6
  # where a class has fewer images than are shown, the rest is blank
  assert greys[1] == bee + blank * 3 + blank + [101] * 6 + blank + [201] * 6


def test_samples_of_some_classes_stand_in_the_order_that_is_asked_for(generated):
  found = generated(('tuned', (2, 2), 'finetune', 100))
  assert _greys(sample_grid(found, ['bee', 'ant']), 2) == [
    [*_first_of(found, 1), 255, 255, 255, 255, 101, 101, 255, 255, 255, 255],
    [*_first_of(found, 0), 255, 100, 100, 255, 255, 255, 255],
  ]


def test_classes_are_found_by_name_whatever_their_number_is_in_each_job(generated):
  found = generated(('tuned', (2, 3), 'finetune', 100), ('others', (3, 2), 'finetune', 200))
  (found.jobs[1].path / 'manifest.json').write_text(json.dumps({'class_names': ['bee', 'crab']}))
  greys = _greys(sample_grid(found, ['ant', 'bee']), 3)
  # the second job has no ants, and its first class is bees
  assert [grey for grey in greys[0][7:] if grey != 255] == [100] * 2
  assert [grey for grey in greys[1][7:] if grey != 255] == [101] * 3 + [200] * 3


def test_samples_of_different_sizes_are_shown_at_the_size_that_all_reach(generated):
  found = generated(('tuned', (6, 6), 'finetune', 100), ('small', (6, 6), 'finetune', 200))
  small = found.jobs[1]
  small.result['sizes'] = [_SIZE // 2]
  records = [
    Record(np.full((_SIZE // 2, _SIZE // 2, 3), 200 + c, np.uint8), c, str(c), i, 0, '', [])
    for c, i in zip(*(numbers.tolist() for numbers in class_plan((6, 6))))
  ]
  write_shard(small.path / f'{_SIZE // 2}/train-00000-of-00001.tfrecord', records)
  (picture,) = samples(found).blocks
  assert f'at {_SIZE // 2}x{_SIZE // 2}, not picked' in picture.caption
  assert {100, 101, 200, 201} <= set(np.unique(np.asarray(picture.image)).tolist())


def test_the_caption_of_the_samples_says_that_they_were_not_picked(generated):
  section = samples(generated(('raw', (7, 7), 'pretrain', 200), ('tuned', (7, 7), 'finetune', 100)))
  assert section.title == 'Samples'
  (picture,) = section.blocks
  assert picture.name == 'samples' and picture.caption == (
    'The first 6 of each class at 16x16, not picked (raw: seed 0, tuned: seed 1). A row a class: real '
    'training images, then generated ones.'
  )


@pytest.mark.parametrize(
  'num_classes, shown', [(3, [0, 1, 2]), (1000, [0, 111, 222, 333, 444, 555, 666, 777, 888, 999])]
)
def test_ten_classes_are_shown_from_the_first_to_the_last(num_classes, shown, monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    'imagenet_synth.report.generator.sample_grid', lambda results, classes: asked.append(classes)
  )
  names = [f'class {label}' for label in range(num_classes)]
  (tmp_path / 'manifest.json').write_text(json.dumps({'class_names': names}))
  samples(results(hand_made.job('generate', 'g', {'sizes': [8]}, {}, tmp_path)))
  assert asked == [[names[label] for label in shown]]


def _trained(tmp_path, kind, name, losses, num_steps=100, **more):
  path = tmp_path / name
  path.mkdir()
  (path / 'metrics.jsonl').write_text(
    ''.join(json.dumps({'step': step, 'loss': loss}) + '\n' for step, loss in losses.items())
  )
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
  (table,) = section.blocks
  rows = [dict(zip(table.header, row)) for row in table.rows]
  assert rows[0] == {
    'Stage': 'pretrain_base',
    'Starts from': 'random weights',
    'Data': 'digits',
    'Optimizer': 'adam',
    'Steps': '100',
    'Batch size': '2,048',
    'Parameters': '1,234,567',
    'Loss': '0.3750',
    'Seconds': '90',
  }
  assert (rows[1]['Starts from'], rows[1]['Steps'], rows[1]['Loss']) == ('pretrain_base', '1,000', '1.0000')
  assert rows[1]['Data'] == 'digits, glyphs (33.3 %), web (25 %)'
  assert table.note.startswith('Loss: mean over the last quarter of the steps.')


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
  assert table.note == (
    f'select_base: checkpoints of finetune_base, chosen by FID. Step 200 is used on. {_MEASURED}'
  )


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
  assert by_fid.strong == [0] and 'chosen by FID. Step 1 is used on. 600' in by_fid.note
  by_cas = selection(
    results(_with_cas(select(step=2, choose='cas', at_1=1.0, at_2=3.0, at_3=2.0), *cas))
  ).blocks[0]
  assert by_cas.rows == by_fid.rows and by_cas.strong == [1, 2]
  assert (
    'chosen by CAS. Step 2 is used on. Undecided between 2: their CAS differs by less than the spread over '
    'seeds. 600'
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
  assert table.note.startswith(
    f'select_base: checkpoints of finetune_base, chosen by FID. Step {used} is used on.'
  )


def test_each_select_job_has_a_table():
  section = selection(results(select(at_2=1.0), select('select_sr16', 'finetune_sr16', at_2=1.0)))
  assert [table.note.split(',')[0] for table in section.blocks] == [
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


def _cas(mean, std=0.01):
  return {'cas': {'top_1': hand_made.spread(mean, std)}}


def _tables(*jobs):
  return blocks(sweeps(results(*jobs)), Table)


def test_a_table_of_all_trials_with_the_best_one_strong():
  grid = {'noise_augmentation': [0.0, 0.25], 'sampler': ['ddpm', 'ddim']}
  rows = [
    ((a, s), fid, 8.0, {}) for (a, s), fid in zip(((0.0, 'ddpm'), (0.0, 'ddim'), (0.25, 'ddpm')), (3, 1, 2))
  ]
  section = sweeps(results(sweep(grid, rows, {'noise_augmentation': 0.0, 'sampler': 'ddim'})))
  assert section.title == 'Sampler settings, swept'
  # of such a grid the paper has no figure
  (table,) = section.blocks
  assert table.header == [
    'noise augmentation',
    'sampler',
    'Train FID',
    'Validation FID',
    'Inception Score',
    'Samples',
  ]
  assert table.rows == [
    ['0', 'ddpm', '3', '4', '8', '2,400'],
    ['0', 'ddim', '1', '2', '8', '2,400'],
    ['0.25', 'ddpm', '2', '3', '8', '2,400'],
  ]
  assert table.strong == [1]
  assert table.note == (
    'sweep_base, sampler of finetune_sr16, chosen by fid_train. 2,400 samples, features of classify_real at '
    '32x32 (weights 0a). Noise floor, the FID that as many real images would have: train 0.5, validation '
    '0.625.'
  )


def test_trials_closer_than_the_noise_floor_are_undecided():
  rows = [((w,), fid, 8.0, {}) for w, fid in ((1.0, 1.4), (2.0, 1.0), (3.0, 1.5))]
  (table,) = _tables(sweep({'guidance': [1.0, 2.0, 3.0]}, rows, {'guidance': 2.0}))
  assert table.strong == [0, 1]
  assert 'Undecided between 2: their FID differs by less than the noise floor. 2,400 samples' in table.note


def test_by_cas_trials_are_told_apart_by_their_spread_over_seeds():
  rows = [((w,), 9 - w, 8.0, _cas(mean, 0.03)) for w, mean in ((1.0, 0.75), (2.0, 0.72), (3.0, 0.5))]
  job = sweep({'guidance': [1.0, 2.0, 3.0]}, rows, {'guidance': 1.0}, choose='cas', cas_real=_cas(0.9)['cas'])
  (table,) = _tables(job)
  assert table.header[-2:] == ['CAS (%)', 'Samples'] and table.rows[0][-2] == '75.00 ± 3.00'
  assert table.strong == [0, 1]
  assert (
    'chosen by cas. Undecided between 2: their CAS differs by less than the spread over seeds.' in table.note
  )


def test_of_a_sweep_with_halving_the_trials_of_the_last_round_count():
  few = {'num_samples': 60}
  rows = [((1.0,), 5.0, 8.0, {}), ((2.0,), 2.0, 8.0, {}), ((3.0,), 1.0, 8.0, few)]
  job = sweep({'guidance': [1.0, 2.0, 3.0]}, rows, {'guidance': 2.0}, num_without_halving=7200)
  (table,) = _tables(job)
  assert table.strong == [1] and table.rows[2][-1] == '60'
  assert table.note.endswith(
    ' Successive halving: 4,860 images drawn instead of 7,200; figures of few samples do not compare with '
    'those of many.'
  )
  (picture,) = blocks(sweeps(results(job)), Picture)
  # figures of few samples are not drawn beside those of many
  assert points(picture.image) == [[5, 8], [2, 8]]


def test_without_halving_there_is_no_word_of_it():
  rows = [((w,), w, 8.0, {}) for w in (1.0, 2.0)]
  (table,) = _tables(sweep({'guidance': [1.0, 2.0]}, rows, {'guidance': 1.0}))
  assert 'halving' not in table.note


def _guidance_and_logvar(**more):
  grid = {'guidance': [1.0, 2.0], 'logvar': [0.0, 0.3], 'sampler': ['ddpm', 'ddim']}
  rows = [
    ((w, v, s), 2 * w + 10 * v + 5 * (s == 'ddim'), 8.0, {})
    for w in grid['guidance']
    for v in grid['logvar']
    for s in grid['sampler']
  ]
  best = {'guidance': 1.0, 'logvar': 0.0, 'sampler': 'ddpm'}
  return sweep(grid, rows, best, choose='fid_validation', **more)


def test_guidance_and_log_variance_are_drawn_as_figure_3_left():
  (picture,) = blocks(sweeps(results(_guidance_and_logvar())), Picture)
  assert picture.name == 'sweep_base_fid'
  assert picture.caption == (
    'As Figure 3, left, of the paper. At sampler ddpm. 2,400 samples, features of classify_real at 32x32 '
    '(weights 0a). Noise floor, the FID that as many real images would have: train 0.5, validation 0.625.'
  )
  # validation FID at the best sampler, a line for each log-variance; what is decided is ringed
  assert points(picture.image) == [[1, 3], [2, 5]] and points(picture.image, 1) == [[1, 6], [2, 8]]
  assert '3 at 1' in [text.get_text() for text in picture.image.axes[0].texts]


def test_the_paper_is_drawn_where_the_images_are_imagenet_s():
  for dataset, drawn in (('digits', False), ('imagenet2012', True)):
    (picture,) = blocks(sweeps(results(_guidance_and_logvar(dataset=dataset))), Picture)
    assert ('faint: the paper' in [text.get_text() for text in picture.image.axes[0].texts]) == drawn


def test_an_undecided_sweep_has_no_ring():
  job = _guidance_and_logvar()
  job.result['rows'][2]['fid_validation'] = 3.5
  (picture,) = blocks(sweeps(results(job)), Picture)
  assert not any(' at ' in text.get_text() for text in picture.image.axes[0].texts)


def test_guidance_alone_is_drawn_as_figure_3_center_and_with_cas_right():
  grid = {'guidance': [1.0, 2.0]}
  rows = [((1.0,), 3.0, 8.0, _cas(0.5)), ((2.0,), 1.0, 9.0, _cas(0.75, 0.02))]
  job = sweep(grid, rows, {'guidance': 2.0}, 'guided', cas_real=_cas(0.875)['cas'])
  center, right = blocks(sweeps(results(job)), Picture)
  assert (center.name, right.name) == ('guided_fid_is', 'guided_cas')
  assert center.caption.startswith('As Figure 3, center, of the paper. 2,400 samples')
  assert right.caption.startswith('As Figure 3, right, of the paper. 2,400 samples')
  assert points(center.image) == [[3, 8], [1, 9]]
  assert points(right.image) == [[1, 50], [2, 75]]
  # what the same classifier gets from real images
  assert 'Real data, top-1: 87.50' in [text.get_text() for text in right.image.axes[0].texts]


def test_augmentation_and_log_variance_with_cas_are_drawn_as_figure_4():
  grid = {'noise_augmentation': [0.0, 0.1], 'logvar': [0.1, 0.3]}
  rows = [((a, v), 1 + 10 * a, 8.0, _cas(0.75 - v)) for a in (0.0, 0.1) for v in (0.1, 0.3)]
  best = {'noise_augmentation': 0.0, 'logvar': 0.1}
  job = sweep(grid, rows, best, choose='cas', cas_real=_cas(0.875)['cas'])
  (picture,) = blocks(sweeps(results(job)), Picture)
  assert picture.name == 'sweep_base_cas_fid' and picture.caption.startswith(
    'As Figure 4 of the paper. 2,400'
  )
  assert points(picture.image) == [[1, pytest.approx(65)], [2, pytest.approx(65)]]
  without = sweep(grid, [(*row[:3], {}) for row in rows], best)
  assert not blocks(sweeps(results(without)), Picture)


def test_the_figures_of_each_size_and_data_set_beside_those_of_real_images():
  tuned = evaluate(at_8=figures(1.25, 2.5), at_16=figures(123.4, 2.0, 80))
  raw = evaluate('evaluate_raw', finetuned=False, at_8=figures(3.0, 4.0))
  section = quality(results(tuned, raw))
  assert section.title == 'FID and KID, precision and recall, Inception Score'
  table = section.blocks[0]
  assert table.header == [
    'Size',
    'Images',
    'Train FID',
    'Validation FID',
    'KID',
    'Precision',
    'Recall',
    'Density',
    'Coverage',
    'Inception Score',
    'Number',
  ]
  compared = ['0.00125', '0.750', '0.625', '0.875', '0.500', '8.50 ± 0.25']
  of_real = ['0.75', '', '0.00125', '0.875', '0.500', '0.875', '0.500', '9.00 ± 0.12', '400']
  floors = ['noise floor: as many real ones', '0.5', '0.625', *[''] * 6]
  assert table.rows == [
    ['8x8', 'fine-tuned', '1.25', '2.5', *compared, '2,400'],
    ['8x8', 'not fine-tuned', '3', '4', *compared, '2,400'],
    ['8x8', 'real validation images', *of_real],
    # of both jobs' images, which are as many
    ['8x8', *floors, '2,400'],
    ['16x16', 'fine-tuned', '123', '2', *compared, '80'],
    ['16x16', 'real validation images', *of_real],
    ['16x16', *floors, '80'],
  ]
  assert table.strong == [0, 4]


def test_features_of_another_network_have_a_table_of_their_own_and_need_no_inception_score():
  dino = figures(70.0, 80.0)
  del dino['is'], dino['is_std']
  other = {'extractor': 'DINOv2 ViT-L/14 (weights 2c)', 'caveat': '', 'doubt': ''}
  jobs = evaluate(at_8=figures(1, 1)), evaluate('evaluate_dino', extractor=other, at_8=dino)
  tables = blocks(quality(results(*jobs)), Table)
  assert [table.rows[0][2] for table in tables] == ['1', '70']
  assert [table.rows[0][-2] for table in tables] == ['8.50 ± 0.25', '']
  assert 'features of DINOv2 ViT-L/14' in tables[1].note


def test_sizes_ascend_as_numbers():
  section = quality(results(evaluate(at_1024=figures(1, 1), at_64=figures(1, 1), at_256=figures(1, 1))))
  assert list(dict.fromkeys(row[0] for row in section.blocks[0].rows)) == ['64x64', '256x256', '1024x1024']


def test_images_from_elsewhere_go_by_their_path():
  rows = quality(results(evaluate(samples='data/adm.npz', finetuned=None, at_8=figures(1, 1)))).blocks[0].rows
  assert rows[0][1] == 'data/adm.npz'


def test_the_paper_s_figures_stand_below():
  text = quality(results(evaluate(at_8=figures(1, 1)))).blocks[-1]
  assert text == Paragraph(
    'The paper, ImageNet, Inception-v3 features: 64x64 train FID 1.21, validation FID 2.51, IS 85.77 ± 0.06; '
    '256x256 train FID 1.76, validation FID 2.81, IS 239.18 ± 1.14.'
  )
