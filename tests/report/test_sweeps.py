"""What the report says of sweeps: rows, notes and pictures of hand-made results."""

import pytest

from imagenet_synth.report.page import Heading, Picture, Table
from imagenet_synth.report.sweeps import sweeps
from tests.report import hand_made
from tests.report.hand_made import blocks, points, results, sweep


def test_there_is_no_section_without_a_sweep():
  assert sweeps(results(hand_made.job('embed', 'embed', {}, {}))) is None


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
    'Noise augmentation',
    'Sampler',
    'Train FID',
    'Validation FID',
    'Inception Score',
    'Recall',
    'Samples',
  ]
  assert table.rows == [
    ['0', 'ddpm', '3', '4', '8', '0.625', '2,400'],
    ['0', 'ddim', '1', '2', '8', '0.625', '2,400'],
    ['0.25', 'ddpm', '2', '3', '8', '0.625', '2,400'],
  ]
  assert table.strong == [1]
  assert table.caption == 'sweep_base: sampler of finetune_sr16, chosen by Train FID'
  assert table.note == (
    '2,400 samples, features of classify_real at '
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
    table.caption == 'sweep_base: sampler of finetune_sr16, chosen by CAS'
    and 'Undecided between 2: their CAS differs by less than the spread over seeds.' in table.note
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
  assert picture.caption == 'As Figure 3, left, of the paper. At sampler ddpm.'
  assert picture.alt == (
    'Validation FID by guidance, a line for each log-variance coefficient. 0: 3 at 1, 5 at 2; 0.3: 6 at 1, 8 '
    'at 2.'
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
  assert center.caption == 'As Figure 3, center, of the paper.'
  assert right.caption == 'As Figure 3, right, of the paper.'
  assert center.alt.endswith('a mark for each guidance weight: 1: FID 3, score 8; 2: FID 1, score 9.')
  assert right.alt == (
    'Classification accuracy score in percent by guidance: 50.00 ± 1.00 at 1; 75.00 ± 2.00 at 2. A dotted '
    'line: real images, 87.50 ± 1.00.'
  )
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
  assert picture.name == 'sweep_base_cas_fid' and picture.caption == 'As Figure 4 of the paper.'
  assert picture.alt.endswith(
    'FID and CAS of 0.1: 1 and 65.00 at noise 0, 2 and 65.00 at noise 0.1; 0.3: '
    '1 and 45.00 at noise 0, 2 and 45.00 at noise 0.1.'
  )
  assert points(picture.image) == [[1, pytest.approx(65)], [2, pytest.approx(65)]]
  without = sweep(grid, [(*row[:3], {}) for row in rows], best)
  assert not blocks(sweeps(results(without)), Picture)


def test_several_sweeps_have_a_heading_each():
  rows = [((w,), w, 8.0, {}) for w in (1.0, 2.0)]
  jobs = [sweep({'guidance': [1.0, 2.0]}, rows, {'guidance': 1.0}, name) for name in ('first', 'second')]
  assert [block.text for block in blocks(sweeps(results(*jobs)), Heading)] == ['first', 'second']
  assert not blocks(sweeps(results(jobs[0])), Heading)


def _by_steps(name, sampler, **more):
  grid = {'num_steps': [2, 4], 'sampler': [sampler]}
  rows = [
    ((num, sampler), 5.0, 8.0, {**_cas(0.5 + num / 10), 'recall': 0.25 * num, 'evaluations': 2 * num})
    for num in (2, 4)
  ]
  best = {'num_steps': 4, 'sampler': sampler}
  return sweep(grid, rows, best, name, 'cas', cas_real=_cas(0.9)['cas'], **more)


def test_sweeps_of_steps_are_drawn_together_by_what_an_image_costs():
  jobs = _by_steps('ancestral', 'ddpm'), _by_steps('second_order', 'dpmpp_2m')
  section = sweeps(results(*jobs))
  (picture,) = blocks(section, Picture)
  assert section.blocks[0] is picture and picture.jobs == ['ancestral', 'second_order']
  assert points(picture.image) == points(picture.image, 1) == [[4, 70], [8, 90]]
  assert [text.get_text() for text in picture.image.axes[0].get_legend().get_texts()] == [
    'ancestral, sampler ddpm',
    'second_order, sampler dpmpp_2m',
  ]
  assert 'second_order, sampler dpmpp_2m: 70.00 ± 1.00 at 4, 90.00 ± 1.00 at 8. A dotted' in picture.alt
  rows = [hand_made.by_column(table) for table in blocks(section, Table)]
  assert [row['Evaluations an image'] for row in rows[0]] == ['4', '8']
  assert [row['Recall'] for row in rows[1]] == ['0.5', '1']


def test_an_interval_of_guidance_is_written_as_such():
  grid = {'guidance_interval': [None, [-6.0, 2.5]]}
  rows = [((None,), 5.0, 8.0, {}), (([-6.0, 2.5],), 4.0, 8.0, {})]
  (table,) = _tables(sweep(grid, rows, {'guidance_interval': None}))
  assert [row[0] for row in table.rows] == ['all', '-6 to 2.5']
