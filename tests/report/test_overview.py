"""The first and the last section of the report: its sentences and its table of origins."""

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
  assert _texts(classify(real=_REAL, synthetic=_SYNTHETIC, both=both, raw=raw)) == [
    'ResNet, tested on 1,234 real images that it has not seen, gets 80.00 ± 1.00 % of them right when it is '
    'trained on 600 real images. Trained on 1,200 synthetic ones alone, it gets 60.00 ± 2.00 % (the '
    'Classification Accuracy Score), where guessing gives 33.3 %: 57 % of what the real images give above '
    'that. On 600 real + 1,200 synthetic: 87.50 ± 1.00 %, +7.50 points, more than the noise. The cascade '
    'that was not fine-tuned scores 25.00 ± 1.00 %. Mean ± standard deviation over 3 seeds.'
  ]


def test_what_was_not_run_is_left_out():
  (text,) = _texts(classify(real=_REAL, synthetic=_SYNTHETIC))
  assert text.endswith(
    '57 % of what the real images give above that. Mean ± standard deviation over 3 seeds.'
  )


@pytest.mark.parametrize(
  'top_1, said',
  [(0.79, '-1.00 points, a difference within the noise'), (0.7, '-10.00 points, more than the noise')],
)
def test_a_difference_to_real_images_is_held_against_the_noise(top_1, said):
  (text,) = _texts(classify(real=_REAL, synthetic=_SYNTHETIC, both=mixture(600, 1200, top_1)))
  assert f'On 600 real + 1,200 synthetic: {100 * top_1:.2f} ± 1.00 %, {said}. Mean' in text


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
