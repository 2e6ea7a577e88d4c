"""What the report says of evaluate jobs: a table of hand-made figures beside the paper's."""

from imagenet_synth.report.page import NO_RUN, Table
from imagenet_synth.report.quality import quality
from tests.report.hand_made import blocks, evaluate, figures, results

_OF_THE_PAPER = [
  ['64x64', 'the paper', '1.21', '2.51', *[''] * 5, '85.77 ± 0.06', ''],
  ['256x256', 'the paper', '1.76', '2.81', *[''] * 5, '239.18 ± 1.14', ''],
]


def test_there_is_no_section_without_an_evaluate_job():
  assert quality(results()) is None


def test_the_figures_of_each_size_and_data_set_beside_those_of_real_images():
  tuned = evaluate(at_8=figures(1.25, 2.5), at_16=figures(123.4, 2.0, 80))
  raw = evaluate('evaluate_raw', finetuned=False, at_8=figures(3.0, 4.0))
  section = quality(results(tuned, raw))
  assert section.title == 'FID and KID, precision and recall, Inception Score'
  table = section.blocks[0]
  assert table.caption == 'As Table 1 of the paper, by the features of classify_real at 32x32 (weights 0a)'
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
    *_OF_THE_PAPER,
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
  assert 'features of DINOv2 ViT-L/14' in tables[1].caption


def test_sizes_ascend_as_numbers():
  section = quality(results(evaluate(at_1024=figures(1, 1), at_64=figures(1, 1), at_256=figures(1, 1))))
  rows = section.blocks[0].rows
  assert list(dict.fromkeys(row[0] for row in rows)) == ['64x64', '256x256', '1024x1024']
  # beside what was measured here
  assert [row[1] for row in rows if row[0] == '64x64'][-1] == 'the paper'


def test_images_from_elsewhere_go_by_their_path():
  rows = quality(results(evaluate(samples='data/adm.npz', finetuned=None, at_8=figures(1, 1)))).blocks[0].rows
  assert rows[0][1] == 'data/adm.npz'


def test_of_imagenet_the_sizes_that_the_paper_has_and_nobody_here_are_seen_to_be_empty():
  job = evaluate(at_64=figures(1, 1))
  job.config['references'] = {'train': {'name': 'imagenet2012'}}
  (table,) = blocks(quality(results(job)), Table)
  rows = table.rows
  assert rows[-2:] == [['256x256', 'fine-tuned', NO_RUN, NO_RUN, *[''] * 5, NO_RUN, ''], _OF_THE_PAPER[1]]
  assert [row[1] for row in rows].count('fine-tuned') == 2 and table.strong == [0]
