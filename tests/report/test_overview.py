"""The first and the last section of the report: its sentences and its table of origins."""

import re

import pytest

from imagenet_synth.report.overview import in_short, origins
from tests.report import hand_made
from tests.report.hand_made import VIT, classify, mixture, results

# 3 classes: guessing gives a third
_REAL, _SYNTHETIC = mixture(600, top_1=0.8), mixture(0, 1200, 0.6, std=0.02)


def _texts(*jobs):
  return [block.text for block in in_short(results(*jobs)).blocks]


def test_nothing_found_nothing_said():
  assert in_short(results(hand_made.job('generate', 'generate', {}, {}))) is None


def test_all_that_is_known_of_a_classifier_in_one_paragraph():
  raw, both = mixture(0, 1200, 0.25, finetuned=False), mixture(600, 1200, 0.875)
  # 0.6 is 57 % of the way from a third to 0.8
  assert _texts(classify(real=_REAL, synthetic=_SYNTHETIC, both=both, raw=raw))[1:] == [
    'ResNet, tested on 1,234 real images that it has not seen, gets 80.00 ± 1.00 % of them right when it is '
    'trained on 600 real images. Trained on 1,200 synthetic ones alone, it gets 60.00 ± 2.00 % (the '
    'Classification Accuracy Score), where guessing gives 33.3 %: 57 % of what the real images give above '
    'that. The cascade that was not fine-tuned scores 25.00 ± 1.00 %. Mean ± standard deviation over 3 seeds.'
  ]


def _first_line(*jobs):
  return _texts(*map(hand_made.keep_predictions, jobs))[0]


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
  text = _first_line(classify(path=tmp_path, num_test=10_000, real=_REAL, synthetic=_SYNTHETIC, both=both))
  between = '10,000 real test images right, with the real ones alone '
  start = f'{answer}: ResNet with 600 real and 1,200 synthetic images gets '
  assert text.startswith(start)
  # the ends of the interval are drawn: within a tenth of a point
  numbers = lambda text: [float(number) for number in re.findall(r'[-+]\d+\.\d', text)]
  assert numbers(text) == pytest.approx(numbers(end), abs=0.11)
  assert re.sub(r'[-+]\d+\.\d', '#', text) == start + re.sub(r'[-+]\d+\.\d', '#', end.format(between))


def test_without_predictions_it_is_not_known_and_why():
  text = _texts(classify(real=_REAL, both=mixture(600, 1200, 0.875)))[0]
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
  text = _first_line(classify(path=tmp_path, **mixtures))
  assert 'and 1,200 synthetic images of 16x16, of a cascade that was not fine-tuned, gets 87.5 %' in text
  assert text.endswith('; with one seed, the spread over seeds is not known).')


def test_there_is_an_answer_for_each_classifier_and_number_of_real_images():
  few = dict(few=mixture(60), few_both=mixture(60, 600))
  texts = _texts(
    classify(real=_REAL, both=mixture(600, 600), **few),
    classify('vit', 'ViT', model=VIT, real=_REAL, both=mixture(600, 600)),
  )
  assert [text.split(': ')[1].split(' synthetic')[0] for text in texts] == [
    'ResNet with 60 real and 600',
    'ResNet with 600 real and 600',
    'ViT with 600 real and 600',
  ]


def test_what_was_not_run_is_left_out():
  (text,) = _texts(classify(real=_REAL, synthetic=_SYNTHETIC))
  assert text.endswith(
    '57 % of what the real images give above that. Mean ± standard deviation over 3 seeds.'
  )


@pytest.mark.parametrize(
  'top_1, start, said',
  [(0.8001, '+0.01 points', 'a difference within the noise'), (0.7, '-10.00 points', 'more than the noise')],
)
def test_a_smaller_number_of_synthetic_images_is_held_against_the_noise_too(top_1, start, said, tmp_path):
  mixtures = dict(real=_REAL, synthetic=_SYNTHETIC, both=mixture(600, 600, top_1), more=mixture(600, 1200))
  job = hand_made.keep_predictions(classify(path=tmp_path, num_test=10_000, **mixtures))
  _, text = _texts(job)
  text = re.sub(r' \([-+]\d\S+ to [-+]\d\S+\)', '', text)
  assert f'On 600 real + 600 synthetic: {100 * top_1:.2f} ± 1.00 %, {start}, {said}. Mean' in text


def test_a_classifier_no_better_than_guessing_is_said_to_be_worthless_with_what_comes_next():
  (text,) = _texts(classify(real=_REAL, synthetic=mixture(0, 1200, 0.34)))
  assert (
    'where guessing gives 33.3 %: worthless so far; next: more steps of training, a larger network. ' in text
  )
  (text,) = _texts(classify(real=mixture(600, top_1=0.34), synthetic=_SYNTHETIC))
  assert (
    'even real images hardly train this classifier, so nothing can be said of synthetic ones; next: ' in text
  )
  assert '% of what the real images give' not in text


def test_one_seed_has_no_deviation():
  real, synthetic = mixture(600, top_1=0.8, std=None), mixture(0, 1200, 0.6, std=None)
  (text,) = _texts(classify(real=real, synthetic=synthetic))
  assert (
    'gets 80.00 % of them right' in text and 'it gets 60.00 % (the' in text and text.endswith('. One seed.')
  )


def test_a_paragraph_for_each_classifier_that_was_trained_on_real_and_on_synthetic_images():
  vit = classify('vit', 'ViT', model=VIT, real=_REAL, synthetic=_SYNTHETIC)
  real_only = classify('more', 'Real', model={}, real=_REAL)
  texts = _texts(classify(real=_REAL, synthetic=_SYNTHETIC), vit, real_only)
  assert [text.split(',')[0] for text in texts] == ['ResNet', 'ViT']


def _embed(name, encoder):
  return hand_made.job('embed', name, {'encoder': encoder}, {})


def test_encoders_and_extractors_are_named_once_each_with_what_must_be_known_of_them():
  doubtful = hand_made.INCEPTION | {'doubt': 'It gets 11.0 % right'}
  inception = hand_made.evaluate('measured', extractor=doubtful, at_8=hand_made.figures(1, 1))
  assert _texts(
    _embed('captions', 'T5 weights from t5'),
    _embed('classes', 'T5 weights from t5'),
    hand_made.select(at_1=1.0),
    hand_made.evaluate(at_8=hand_made.figures(1, 1)),
    inception,
  ) == [
    'Text encoder: T5 weights from t5.',
    'FID and Inception Score use the features of classify_real at 32x32 (weights 0a), not Inception-v3.',
    'FID and Inception Score use the features of Inception-v3 of FID (weights 1b). It gets 11.0 % right.',
  ]


def test_a_row_for_each_job_in_order_with_what_it_was_made_from():
  first = hand_made.job('embed', 'embed', {}, {}, seconds=12.4)
  second = hand_made.job('generate', 'generate', {}, {}, inputs=('embed', 'finetune'), seconds=3587.5)
  section = origins(results(first, second))
  assert section.title == 'Where it comes from'
  (table,) = section.blocks
  assert table.header == ['Job', 'Kind', 'Seconds', 'Config hash', 'Code', 'Made from']
  assert table.rows == [
    ['embed', 'embed', '12', 'hash of embed', 'abc123', ''],
    ['generate', 'generate', '3588', 'hash of generate', 'abc123', 'embed, finetune'],
  ]
  assert table.note == '60.0 minutes in all, the report left out.'
