"""The first section of the report: the answer, its cost, its picture and table, and what to know."""

import re

import pytest

from imagenet_synth.report.answer import in_short
from imagenet_synth.report.page import Lead, Paragraph, Picture, Points, Table
from tests.report import hand_made
from tests.report.hand_made import RUN, VIT, blocks, by_column, classify, mixture, results

# 3 classes: guessing gives a third
_REAL, _SYNTHETIC = mixture(600, top_1=0.8), mixture(0, 1200, 0.6, std=0.02)


def _lead(*jobs):
  first, *_ = in_short(results(*jobs)).blocks
  assert isinstance(first, Lead)
  return first.text


def _kept(*jobs):
  return [hand_made.keep_predictions(job) for job in jobs]


@pytest.mark.parametrize(
  'jobs', [[], [classify(real=_REAL, synthetic=_SYNTHETIC)], [classify(both=mixture(600, 600))]]
)
def test_without_anything_to_compare_it_is_said_that_nothing_was_measured(jobs):
  assert _lead(*jobs) == (
    'Whether synthetic images help was not measured: it takes a classifier that is trained on real images '
    'alone, and one on the same together with synthetic ones.'
  )
  assert not blocks(in_short(results(*jobs)), Picture | Table)


@pytest.mark.parametrize(
  'top_1, answer, end',
  [
    # of 10,000 images: 1.96 standard errors are 0.51, 0.54 and 0.12 points
    (0.875, 'Synthetic data helps', '87.5 % of {}80.0 %: +7.5 points (95 % interval +7.0 to +8.0; 3 seeds).'),
    (0.715, 'Synthetic data hurts', '71.5 % of {}80.0 %: -8.5 points (95 % interval -9.0 to -8.0; 3 seeds).'),
    (
      0.8001,
      'No difference that could be told from noise',
      '80.0 % of {}80.0 %: +0.0 points (95 % interval -0.0 to +0.0; 3 seeds).',
    ),
  ],
)
def test_the_first_line_says_whether_synthetic_data_helps_by_how_much_and_how_sure(
  top_1, answer, end, tmp_path
):
  both = mixture(600, 1200, top_1)
  text = _lead(*_kept(classify(path=tmp_path, num_test=10_000, real=_REAL, synthetic=_SYNTHETIC, both=both)))
  between = '10,000 real test images right, with the real ones alone '
  start = f'{answer}: ResNet with 600 real and 1,200 synthetic images gets '
  assert text.startswith(start)
  # the ends of the interval are drawn: within a tenth of a point
  numbers = lambda text: [float(number) for number in re.findall(r'[-+]\d+\.\d', text)]
  assert numbers(text) == pytest.approx(numbers(end), abs=0.11)
  assert re.sub(r'[-+]\d+\.\d', '#', text) == start + re.sub(r'[-+]\d+\.\d', '#', end.format(between))


def test_without_predictions_it_is_not_known_and_why():
  text = _lead(classify(real=_REAL, both=mixture(600, 1200, 0.875)))
  assert text == (
    'Not known whether synthetic data helps: ResNet with 600 real and 1,200 synthetic images gets 87.5 % of '
    '1,234 real test images right, with the real ones alone 80.0 %: +7.5 points (no interval, as an earlier '
    'version of the program kept no predictions).'
  )


def test_what_is_special_of_images_and_seeds_is_in_the_first_line(tmp_path):
  mixtures = dict(
    real=mixture(600, top_1=0.8, std=None),
    both=mixture(600, 1200, 0.875, std=None, finetuned=False, synthetic_size=16),
  )
  text = _lead(*_kept(classify(path=tmp_path, **mixtures)))
  assert 'and 1,200 synthetic images of 16x16, of a cascade that was not fine-tuned, gets 87.5 %' in text
  assert text.endswith('; with one seed, the spread over seeds is not known).')


def _many(tmp_path):
  """Four comparisons: a gain, a loss, none, and one whose predictions were not kept; and a control."""
  of = lambda name, both, **more: classify(
    name, name, path=tmp_path / name, num_test=10_000, model={'width': name}, real=_REAL, both=both, **more
  )
  control = mixture(600, top_1=0.9, num_stand_in=100)
  kept = _kept(
    of('gains', mixture(600, 1200, 0.875), control=control),
    of('loses', mixture(600, 1200, 0.7)),
    of('same', mixture(600, 1200, 0.8001)),
  )
  return [*kept, of('unknown', mixture(600, 1200, 0.81))]


def test_of_several_comparisons_none_is_picked(tmp_path):
  assert _lead(*_many(tmp_path)) == (
    'Synthetic data helps in 1, hurts in 1, makes no difference that could be told from noise in 1 and has '
    'an effect that is not known in 1 of 4 comparisons: between -10.0 and +7.5 points of top-1 accuracy on '
    'real test images, beside the same real images alone.'
  )


def test_controls_are_held_against_synthetic_images(tmp_path):
  section = in_short(results(*_many(tmp_path)))
  assert blocks(section, Paragraph)[0].text == (
    'Controls, other labelled images in the place of synthetic ones, help more than synthetic images in 1 of '
    '1.'
  )
  assert len(blocks(in_short(results(classify(real=_REAL, both=mixture(600, 1200)))), Paragraph)) == 1


def test_the_picture_and_the_table_have_all_comparisons_and_controls(tmp_path):
  section = in_short(results(*_many(tmp_path)))
  (picture,), (table,) = blocks(section, Picture), blocks(section, Table)
  rows = by_column(table)
  assert [(row['Classifier'], row['Trained on'], row['Verdict']) for row in rows] == [
    ('gains', '600 real + 1,200 synthetic', 'helps'),
    ('gains', '600 real + 100 stand-in', 'control helps'),
    ('loses', '600 real + 1,200 synthetic', 'hurts'),
    ('same', '600 real + 1,200 synthetic', 'within the noise'),
    ('unknown', '600 real + 1,200 synthetic', 'not known'),
  ]
  assert rows[0]['Gain'].startswith('+7.50 (+') and rows[4]['Gain'] == '+1.00'
  assert (rows[0]['Top-1 (%)'], rows[0]['Real alone (%)'], rows[0]['Seeds']) == (
    '87.50 ± 1.00',
    '80.00 ± 1.00',
    '3',
  )
  # on a phone, what is behind the gain is out of sight
  assert table.header[:4] == ['Classifier', 'Trained on', 'Top-1 (%)', 'Gain']
  assert table.jobs == picture.jobs == ['gains', 'loses', 'same', 'unknown']
  assert 'Grey: controls' in picture.caption
  assert re.search(
    r'gains: 600 real \+ 1,200: \+7.5 \(\S+ to \S+\); gains: 600 real \+ 100 \(control\): ', picture.alt
  )
  assert picture.alt.endswith('unknown: 600 real + 1,200: +1.0.')


def test_there_is_a_row_for_each_classifier_and_number_of_real_images():
  few = dict(few=mixture(60), few_both=mixture(60, 600))
  section = in_short(
    results(
      classify(real=_REAL, both=mixture(600, 600), **few),
      classify('vit', 'ViT', model=VIT, real=_REAL, both=mixture(600, 600)),
    )
  )
  assert [row[:2] for row in blocks(section, Table)[0].rows] == [
    ['ResNet', '60 real + 600 synthetic'],
    ['ResNet', '600 real + 600 synthetic'],
    ['ViT', '600 real + 600 synthetic'],
  ]
  assert 'Grey' not in blocks(section, Picture)[0].caption


def test_the_cost_is_told_by_what_it_was_spent_on():
  stages = [{'sampler': {'num_steps': num}} for num in (16, 4)]
  drawn = {'stages': stages, 'class_counts': [50, 100]}
  of = hand_made.job
  jobs = [
    of('embed', 'embed', {'encoder': 'T5'}, {}, seconds=60),
    of('pretrain', 'train', {}, {}, seconds=5400),
    of('generate', 'generate', drawn, {}, seconds=30),
    classify(real=_REAL),
  ]
  (cost,) = blocks(in_short(results(*jobs)), Paragraph)
  assert cost.text == (
    'It took 1.5 h on 8 x TPU v4: training the generator 1.5 h; drawing 150 images (16 + 4 steps of the '
    'samplers each) 30 s; training and testing 3 classifiers 1.0 min.'
  )
  unknown = of('embed', 'embed', {'encoder': 'T5'}, {}, seconds=60, run={})
  (cost,) = blocks(in_short(results(unknown)), Paragraph)
  assert cost.text == 'It took 1.0 min: training the generator 1.0 min.'
  cpu = of('embed', 'more', {'encoder': 'T5'}, {}, run=RUN | {'device': 'cpu', 'num_processes': 1})
  (cost,) = blocks(in_short(results(jobs[0], cpu)), Paragraph)
  assert cost.text.startswith('It took 2.0 min on 8 x TPU v4, 96 CPU cores: ')


def _embed(name, encoder):
  return hand_made.job('embed', name, {'encoder': encoder}, {})


def test_encoders_and_extractors_are_named_once_each_with_what_must_be_known_of_them():
  doubtful = hand_made.INCEPTION | {'doubt': 'It gets 11.0 % right'}
  inception = hand_made.evaluate('measured', extractor=doubtful, at_8=hand_made.figures(1, 1))
  (points,) = blocks(
    in_short(
      results(
        _embed('captions', 'T5 weights from t5'),
        _embed('classes', 'T5 weights from t5'),
        hand_made.select(at_1=1.0),
        hand_made.evaluate(at_8=hand_made.figures(1, 1)),
        inception,
      )
    ),
    Points,
  )
  assert points.texts == [
    'Text encoder: T5 weights from t5.',
    'FID and Inception Score use the features of classify_real at 32x32 (weights 0a), not Inception-v3.',
    'FID and Inception Score use the features of Inception-v3 of FID (weights 1b). It gets 11.0 % right.',
  ]
