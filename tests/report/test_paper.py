"""The stored numbers hang together as the paper's own arithmetic and claims say."""

import pytest

from imagenet_synth.report import paper


def test_every_table_is_there_and_rectangular():
  assert list(paper.tables()) == [
    'table_1',
    'table_2',
    'table_3',
    'table_4',
    'figure_3_left',
    'figure_3_center',
    'figure_3_right',
    'figure_4',
    'figure_6',
  ]
  for name, table in paper.tables().items():
    assert table.rows and all(len(row) == len(table.columns) for row in table.rows), name
    assert table.approximate == name.startswith('figure')
    assert len(set(table.rows)) == len(table.rows)


def test_headline_numbers():
  (ours_64,) = paper.tables()['table_1'].select(image_size=64, model='Ours (fine-tuned Imagen)')
  assert (ours_64['fid_train'], ours_64['fid_validation'], ours_64['inception_score']) == (1.21, 2.51, 85.77)
  (ours_256,) = paper.tables()['table_1'].select(image_size=256, model='Ours (fine-tuned Imagen)')
  assert (ours_256['fid_train'], ours_256['inception_score_std']) == (1.76, 1.14)
  (cas,) = paper.tables()['table_2'].select(image_size=1024)
  assert (cas['top_1'], cas['top_5']) == (69.24, 88.10)
  assert [len(paper.tables()[f'table_{i}'].rows) for i in (1, 2, 3, 4)] == [20, 6, 12, 20]


def test_ours_has_the_best_fid_at_either_size():
  for size in (64, 256):
    rows = paper.tables()['table_1'].select(image_size=size)
    assert min(rows, key=lambda row: row['fid_train'])['model'].startswith('Ours')


def test_table_3_gains_are_the_differences():
  for row in paper.tables()['table_3'].select():
    gain = row['real_and_generated'] - row['real']
    assert gain == pytest.approx(row['gain'], abs=0.011), row
    assert row['generated'] < row['real'] < row['real_and_generated']


def test_tables_2_3_and_4_meet():
  (row,) = paper.tables()['table_3'].select(model='ResNet-50')
  (cas,) = paper.tables()['table_2'].select(image_size=1024)
  assert row['generated'] == cas['top_1']
  for size in (256, 1024):
    (real,) = paper.tables()['table_4'].select(image_size=size, total_millions=1.2)
    assert (real['top_1'], real['top_1_std']) == (row['real'], 0.21)


def test_table_4_peaks_at_twice_the_real_data():
  for size in (256, 1024):
    rows = paper.tables()['table_4'].select(image_size=size)
    assert [row['total_millions'] for row in rows] == pytest.approx([1.2 * i for i in range(1, 11)])
    accuracies = [row['top_1'] for row in rows]
    assert max(accuracies) == accuracies[1]
    assert accuracies[1:] == sorted(accuracies[1:], reverse=True)


def test_figure_6_rises_and_agrees_with_its_printed_gains():
  rows = paper.tables()['figure_6'].select()
  accuracies = [row['top_1'] for row in rows]
  assert accuracies == sorted(set(accuracies))
  printed = [row for row in rows if row['printed_gain'] is not None]
  assert [row['generated_millions'] for row in printed] == [3.6, 7.2, 10.8]
  for row in printed:
    assert row['top_1'] - accuracies[0] == pytest.approx(row['printed_gain'], abs=0.05)


def test_figure_3_prefers_a_guidance_of_1_25():
  tables = paper.tables()
  for logvar in (0.0, 1.0):
    rows = tables['figure_3_left'].select(logvar=logvar)
    assert min(rows, key=lambda row: row['fid_validation'])['guidance'] == 1.25
  assert min(tables['figure_3_center'].select(), key=lambda r: r['fid_train'])['guidance'] == 1.25
  assert max(tables['figure_3_right'].select(), key=lambda r: r['top_1'])['guidance'] == 1.25


def test_figure_4_prefers_log_variance_0_1_without_augmentation():
  table = paper.tables()['figure_4']
  for low, high in zip(table.select(logvar=0.1), table.select(logvar=0.3)):
    assert low['augmentation'] == high['augmentation']
    assert low['top_1'] > high['top_1']
  assert max(table.select(), key=lambda row: row['top_1'])['augmentation'] == 0


def test_an_unknown_column_is_an_error():
  with pytest.raises(KeyError, match='modle'):
    paper.tables()['table_3'].select(modle='ResNet-50')
