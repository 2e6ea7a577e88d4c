"""The paper's tables with what was measured beside them; what has no run is seen to be empty."""

from imagenet_synth.report.accuracy import accuracies
from imagenet_synth.report.page import NO_RUN, Table
from imagenet_synth.report.paper_tables import table_2, table_3, table_4
from imagenet_synth.report.studies import classifiers
from tests.report import hand_made
from tests.report.hand_made import BOTH, REAL, SYNTHETIC, VIT, blocks, classify, mixture, results

_IMAGENET = dict(title='ResNet-50', size=224, dataset='imagenet2012')


def _cells(table):
  return {row[0]: list(row[1:]) for row in table.rows}


def test_table_3_has_each_of_the_paper_s_models_and_no_number_where_there_is_no_run():
  deit = dict(_IMAGENET, title='DeiT-B', model=VIT)
  jobs = classify(**_IMAGENET, real=REAL, synthetic=SYNTHETIC, both=BOTH), classify('deit', **deit, real=REAL)
  table = table_3(accuracies(results(*jobs)))
  assert table.header == [
    'Model',
    *(
      name
      for of in ('Real', 'Generated', 'Real + generated', 'Gain')
      for name in (f'{of}: here', 'the paper')
    ),
  ]
  cells = _cells(table)
  assert len(cells) == 12
  assert cells['ResNet-50'] == [
    *('75.00 ± 1.00', '76.39', '50.00 ± 1.00', '69.24', '87.50 ± 2.00', '78.17', '+12.50', '+1.78')
  ]
  assert cells['DeiT-B'] == ['75.00 ± 1.00', '81.79', NO_RUN, '74.55', NO_RUN, '82.84', NO_RUN, '+1.04']
  assert cells['DeiT-B at 384'][:2] == [NO_RUN, '83.16']
  assert table.jobs == ['classify', 'deit']


def test_classifiers_of_other_data_stand_above_two_of_the_paper_s():
  table = table_3(accuracies(results(classify(title='ResNet-50', size=224, real=REAL))))
  assert _cells(table) == {
    'ResNet-50': ['75.00 ± 1.00', '', NO_RUN, '', NO_RUN, '', NO_RUN, ''],
    'ResNet-50 at 224, ImageNet': ['', '76.39', '', '69.24', '', '78.17', '', '+1.78'],
    'ViT-S/16 at 224, ImageNet': ['', '79.89', '', '71.88', '', '81.00', '', '+1.11'],
  }


def test_table_2_has_the_images_of_each_size_also_those_that_were_reduced_from_it():
  """Of 1024x1024, classifiers read images that were made smaller."""
  reduced = mixture(0, 600, 0.625, synthetic_size=256) | {'synthetic': 'reduced'}
  job = classify(**_IMAGENET, reduced=reduced, of_64=mixture(0, 600, synthetic_size=64))
  found = results(job, hand_made.job('reduce', 'reduced', {}, {'size': 1024}))
  (table,) = table_2(found, accuracies(found))
  rows = [list(row) for row in table.rows]
  assert rows[0] == ['Real', '', NO_RUN, '73.09', NO_RUN, '91.47']
  assert rows[-2][1:] == ['256x256', NO_RUN, '64.96', NO_RUN, '85.66']
  assert rows[-1][1:] == ['1024x1024', '62.50 ± 1.00', '69.24', '97.50 ± 1.00', '88.10']
  # a generator of others was not run here, and never will be
  assert rows[1][2] == rows[1][4] == ''


def test_there_is_no_table_2_of_other_data():
  found = results(classify(title='ResNet-50', size=224, real=REAL, synthetic=SYNTHETIC))
  assert table_2(found, accuracies(found)) == []
  assert [table.caption for table in blocks(classifiers(found), Table)] == [
    'Top-1 accuracy by training set',
    'As Table 3 of the paper: top-1 (%) of each classifier',
  ]


def test_table_4_counts_synthetic_images_by_real_ones():
  more = {f'times_{n}': mixture(600, 600 * n, 0.75 + n / 100, synthetic_size=256) for n in (1, 3)}
  found = results(classify(**_IMAGENET, real=REAL, **more))
  table = table_4(found, accuracies(found))
  assert table.header == ['Real + generated', '256x256: here', 'the paper', '1024x1024: here', 'the paper']
  cells = _cells(table)
  assert cells['1.2M'] == ['75.00 ± 1.00', '76.39 ± 0.21', '75.00 ± 1.00', '76.39 ± 0.21']
  assert cells['2.4M'][:3] == ['76.00 ± 1.00', '77.61 ± 0.08', NO_RUN]
  assert cells['3.6M'][0] is NO_RUN and cells['4.8M'][0] == '78.00 ± 1.00' and len(cells) == 10


def test_of_other_data_table_4_is_the_paper_s_alone():
  found = results(classify(real=REAL))
  table = table_4(found, accuracies(found))
  assert table.header == ['Real + generated', '256x256, the paper', '1024x1024, the paper']
  assert table.rows[-1] == ['12.0M', '75.04 ± 0.05', '73.7 ± 0.09'] and not table.jobs
