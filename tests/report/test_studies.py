"""What the report says of classifiers: rows, gains, sentences and pictures of hand-made results."""

import math
import re

import pytest

from imagenet_synth.report.accuracy import accuracies, trios
from imagenet_synth.report.classes import per_class
from imagenet_synth.report.page import Picture, Points, Table
from imagenet_synth.report.studies import classifiers, scaling
from tests.report import hand_made
from tests.report.hand_made import (
  BOTH,
  IN_EPOCHS,
  REAL,
  RESNET,
  SYNTHETIC,
  VIT,
  blocks,
  classify,
  mixture,
  results,
)

_GENERATE = hand_made.job('generate', 'generate', {}, {})


def _cells(section):
  return [list(row) for row in blocks(section, Table)[0].rows]


def test_controls_have_a_gain_but_are_no_part_of_a_trio_or_curve():
  controls = dict(
    control=mixture(600, top_1=0.25, num_stand_in=600), alone=mixture(0, top_1=0.25, num_stand_in=600)
  )
  job = classify(**controls, real=REAL, synthetic=SYNTHETIC, both=BOTH, **_growing())
  (trio,) = trios(accuracies(results(job)))
  assert [of.top_1[0] for of in (trio.real, trio.synthetic, trio.both)] == [75, 50, 87.5]
  assert trio.not_finetuned is None
  assert [(row[1], row[3]) for row in _cells(classifiers(results(job)))][-2:] == [
    ('600 stand-in', '-50.00'),
    ('600 real + 600 stand-in', '-50.00'),
  ]
  (picture,) = blocks(scaling(results(job)), Picture)
  assert '600 real images and synthetic ones.' in picture.caption and 'stand-in' not in picture.caption


def test_there_are_no_sections_without_classifiers():
  nothing = results(hand_made.select(at_1=1.0))
  assert classifiers(nothing) is scaling(nothing) is per_class(nothing) is None


def test_a_row_for_each_mixture_real_images_first_with_its_gain_over_these():
  section = classifiers(results(classify(both=BOTH, synthetic=SYNTHETIC, real=REAL)))
  assert section.title == 'Classifiers on real, synthetic and both'
  table = blocks(section, Table)[0]
  assert table.header == ['Model', 'Trained on', 'Top-1 (%)', 'To real', 'Top-5 (%)', 'ECE (%)', 'Seeds']
  assert _cells(section) == [
    ['ResNet', '600 real', '75.00 ± 1.00', '', '97.50 ± 1.00', '6.25 ± 1.00', '3'],
    ['ResNet', '600 synthetic', '50.00 ± 1.00', '-25.00', '97.50 ± 1.00', '6.25 ± 1.00', '3'],
    ['ResNet', '600 real + 600 synthetic', '87.50 ± 2.00', '+12.50', '97.50 ± 2.00', '6.25 ± 2.00', '3'],
  ]
  assert table.note == (
    'Tested on 1,234 real images; mean ± standard deviation over seeds. Trained on synthetic images alone, '
    'top-1 is the CAS. ECE: expected calibration error. All runs of a model take the same number of steps. '
    'No interval where an earlier version of the program kept no predictions.'
  )


def test_further_tests_have_a_table_of_their_own():
  def tested(mixture, top_1):
    one = {'top_1': hand_made.spread(top_1, 0.01), 'top_5': hand_made.spread(0.875, 0.01), 'num_test': 1000}
    return mixture | {'tests': {'v2': one, 'sketch': one | {'top_1': hand_made.spread(0.25, 0.01)}}}

  job = classify(real=tested(REAL, 0.625), both=tested(BOTH, 0.75))
  table = blocks(classifiers(results(job)), Table)[1]
  rest = ['87.50 ± 1.00', '1,000']
  assert table.rows == [
    ['sketch', 'ResNet', '600 real', '25.00 ± 1.00', *rest],
    ['sketch', 'ResNet', '600 real + 600 synthetic', '25.00 ± 1.00', *rest],
    ['v2', 'ResNet', '600 real', '62.50 ± 1.00', *rest],
    ['v2', 'ResNet', '600 real + 600 synthetic', '75.00 ± 1.00', *rest],
  ]


def _half(share, num):
  """Half of the interval of a share, in points: 1.96 of its standard errors."""
  return 196 * math.sqrt(share * (1 - share) / num)


def _ends(text):
  """The numbers of '+2.10 (+0.95 to +3.20)'."""
  return [float(end) for end in re.fullmatch(r'(\S+) \((\S+) to (\S+)\)', text).groups()]


def test_differences_have_intervals_from_the_predictions_of_all_jobs(tmp_path):
  jobs = [
    classify('real', path=tmp_path / 'real', num_test=1200, real=REAL),
    classify('more', path=tmp_path / 'more', num_test=1200, both=BOTH, synthetic=SYNTHETIC),
  ]
  section = classifiers(results(*map(hand_made.keep_predictions, jobs)))
  gains = [row[3] for row in _cells(section)]
  assert gains[0] == ''
  for text, gain in zip(gains[1:], (-25, 12.5), strict=True):
    half = _half(abs(gain) / 100, 1200)
    assert _ends(text) == pytest.approx([gain, gain - half, gain + half], abs=0.1 * half)
  assert blocks(section, Table)[0].note.endswith(
    'the same number of steps. In brackets: the 95 % interval of the difference. Seeds and test images both '
    'vary in it; the images are the same for both classifiers, seeds are paired where both have the same.'
  )


def test_there_is_no_interval_between_tests_on_different_images(tmp_path):
  jobs = [
    classify('real', path=tmp_path / 'real', test_split='validation', real=REAL),
    classify('more', path=tmp_path / 'more', both=BOTH),
  ]
  section = classifiers(results(*map(hand_made.keep_predictions, jobs)))
  assert [row[3] for row in _cells(section)] == ['', '+12.50']
  assert blocks(section, Table)[0].note.endswith(
    'steps. No interval where the two were tested on different images.'
  )


def test_one_seed_is_said_to_leave_the_spread_over_seeds_unknown(tmp_path):
  mixtures = dict(real=mixture(600, top_1=0.75, std=None), both=mixture(600, 600, 0.8, std=None))
  job = hand_made.keep_predictions(classify(path=tmp_path, **mixtures))
  note = blocks(classifiers(results(job)), Table)[0].note
  assert note.endswith(
    'Of a classifier with one seed, the spread over seeds is not known, and counts as none.'
  )


def test_images_are_held_against_the_same_number_of_the_same_real_ones():
  jobs = [
    classify('train', real=REAL, few=mixture(60, top_1=0.5), both=BOTH, more=mixture(60, 600, 0.625)),
    classify('web', real_split='web', real=mixture(600, top_1=0.25), both=mixture(600, 600, 0.375)),
    classify('other', real_split='other', both=mixture(600, 600, 0.375)),
  ]
  cells = {(row[1], row[2][:5]): row[3] for row in _cells(classifiers(results(*jobs)))}
  assert cells['600 real + 600 synthetic', '87.50'] == '+12.50'
  assert cells['60 real + 600 synthetic', '62.50'] == '+12.50'
  # one of web's, and one of which there are no real images alone
  of_others = [row[3] for row in _cells(classifiers(results(*jobs))) if row[2].startswith('37.50')]
  assert of_others == ['+12.50', '']


def test_one_seed_has_a_mean_alone():
  section = classifiers(results(classify(real=mixture(600, top_1=0.75, std=None))))
  assert _cells(section) == [['ResNet', '600 real', '75.00', '', '97.50', '6.25', '1']]
  assert not blocks(section, Picture)


def test_an_arrow_for_each_model_with_all_three():
  vit = dict(title='ViT', model=VIT)
  section = classifiers(
    results(
      classify(real=REAL, synthetic=SYNTHETIC, both=BOTH),
      classify(**vit, real=mixture(600, top_1=0.25), synthetic=SYNTHETIC, both=SYNTHETIC | {'num_real': 600}),
      classify('none', 'Without both', model={'type': 'vit'}, real=REAL, synthetic=SYNTHETIC),
    )
  )
  (picture,) = blocks(section, Picture)
  assert picture.name == 'real_vs_both'
  assert picture.caption == 'As Figure 1, bottom, of the paper: an arrow from real to real + synthetic.'
  assert picture.alt == (
    'Top-1 accuracy of each model. ResNet: 75.00 ± 1.00 % on real, 50.00 ± 1.00 % on synthetic, 87.50 ± 2.00 '
    '% on both, +12.50; ViT: 25.00 ± 1.00 % on real, 50.00 ± 1.00 % on synthetic, 50.00 ± 1.00 % on both, '
    '+25.00'
  )
  axes = picture.image.axes[0]
  assert [text.get_text() for text in axes.texts][:4] == ['ResNet', '+12.50', 'ViT', '+25.00']
  real, synthetic, both = (container[0].get_xydata()[:, 0].tolist() for container in axes.containers)
  assert (real, synthetic, both) == ([75, 25], [50, 50], [87.5, 50])


def test_a_model_of_two_sizes_has_the_size_in_its_name():
  jobs = [classify(f'at_{size}', 'DeiT-B', size=size, model=VIT, real=REAL) for size in (224, 384)]
  one_size = classify('other', 'ResNet', real=REAL)
  assert [row[0] for row in _cells(classifiers(results(*jobs, one_size)))] == [
    'DeiT-B at 224',
    'DeiT-B at 384',
    'ResNet',
  ]


@pytest.mark.parametrize(
  'recipes, end',
  [
    ([IN_EPOCHS], 'Training lasts so many epochs over the training set, real and synthetic images together.'),
    (
      [{'real_exposures': 9.0, 'batch_size': 64}],
      'Training lasts until each real image was seen so many times, whatever is added.',
    ),
    ([hand_made.IN_STEPS] * 2, 'All runs of a model take the same number of steps.'),
    ([hand_made.IN_STEPS, IN_EPOCHS], 'ECE: expected calibration error. '),
  ],
  ids=['epochs', 'exposures', 'steps', 'differ'],
)
def test_how_long_training_lasts_is_said_where_it_is_the_same_for_all(recipes, end):
  jobs = [classify(f'of_{i}', recipe=recipe, real=REAL) for i, recipe in enumerate(recipes)]
  assert blocks(classifiers(results(*jobs)), Table)[0].note.endswith(end)


def _growing(size=None, start=0.75):
  return {f'both_{n}x_{size}': mixture(600, 600 * n, start + n / 100, synthetic_size=size) for n in (1, 2, 4)}


def test_scaling_starts_from_real_images_and_takes_finetuned_ones():
  raw = mixture(600, 1800, finetuned=False)
  section = scaling(results(classify(title='ResNet-50', size=224, real=REAL, raw=raw, **_growing())))
  (picture,) = blocks(section, Picture)
  assert picture.name == 'scaling_resnet_50_224_real_600'
  assert picture.caption == ('As Figure 6 of the paper: ResNet-50, 600 real images and synthetic ones.')
  assert picture.alt == (
    'Top-1 accuracy by the number of synthetic images: 75.00 % with none; in points to that, +1.00 with 600; '
    '+2.00 with 1,200; +4.00 with 2,400.'
  )
  assert [[0, 75], [600, 76]] in [line.get_xydata().tolist() for line in picture.image.axes[0].lines]
  assert [[600, 76], [1200, 77], [2400, 79]] in [
    line.get_xydata().tolist() for line in picture.image.axes[0].lines
  ]


def test_scaling_has_a_picture_for_each_size_of_images():
  section = scaling(results(classify(real=REAL, **_growing(16), **_growing(32, start=0.5))))
  pictures = blocks(section, Picture)
  assert [picture.name for picture in pictures] == [
    f'scaling_resnet_32_real_600_{size}x{size}' for size in (16, 32)
  ]
  assert '600 real images and synthetic ones of 16x16.' in pictures[0].caption
  for picture, start in zip(pictures, (75, 50), strict=True):
    assert [[600, start + 1], [1200, start + 2], [2400, start + 4]] in [
      line.get_xydata().tolist() for line in picture.image.axes[0].lines
    ]


def test_scaling_has_a_picture_for_each_set_of_real_images_with_intervals(tmp_path):
  few = {f'few_{n}x': mixture(60, 60 * n, 0.5 + n / 20) for n in (1, 2)}
  job = classify(path=tmp_path, num_test=1200, real=REAL, few=mixture(60, top_1=0.5), **few, **_growing())
  pictures = blocks(scaling(results(hand_made.keep_predictions(job))), Picture)
  assert [picture.name for picture in pictures] == ['scaling_resnet_32_real_600', 'scaling_resnet_32_real_60']
  *_, gains = pictures[1].alt.removesuffix('.').split(' in points to that, ')
  for text, gain in zip(gains.split('; '), (5, 10), strict=True):
    text, num = text.split(' with ')
    half = _half(gain / 100, 1200)
    assert int(num) == 12 * gain
    assert _ends(text) == pytest.approx([gain, gain - half, gain + half], abs=0.1 * half)


def test_scaling_has_a_picture_for_each_real_set_and_way_to_mix():
  half = {name: of | {'synthetic_share': 0.5} for name, of in _growing(start=0.5).items()}
  few = {f'few_{name}': of | {'num_real': 100} for name, of in _growing().items()}
  jobs = [
    classify(real=REAL, **_growing()),
    classify('half', **half),
    classify('few', few=mixture(100, top_1=0.125), **few),
  ]
  pictures = blocks(scaling(results(*jobs)), Picture)
  assert [(picture.name, picture.caption.partition(': ')[2]) for picture in pictures] == [
    ('scaling_resnet_32_real_600', 'ResNet, 600 real images and synthetic ones.'),
    (
      'scaling_resnet_32_real_600_half_of_each_batch',
      'ResNet, 600 real images and synthetic ones (half of each batch).',
    ),
    ('scaling_resnet_32_real_100', 'ResNet, 100 real images and synthetic ones.'),
  ]
  for picture, real, start in zip(pictures, (75, 75, 12.5), (75, 50, 75), strict=True):
    lines = [line.get_xydata().tolist() for line in picture.image.axes[0].lines]
    assert [[600, start + 1], [1200, start + 2], [2400, start + 4]] in lines
    assert [[0, real], [600, start + 1]] in lines


def test_scaling_needs_two_numbers_of_images_and_real_ones_alone():
  assert scaling(results(classify(real=REAL, both=BOTH))) is None
  assert scaling(results(classify(**_growing()))) is None


def test_the_paper_s_figure_6_is_drawn_beside_the_same_on_imagenet_and_table_4_stands_below():
  on_imagenet = dict(title='ResNet-50', size=64, dataset='imagenet2012', real=REAL)
  for size, dataset, drawn in ((64, 'imagenet2012', 1), (32, 'imagenet2012', 0), (64, 'digits', 0)):
    section = scaling(results(classify(**on_imagenet | {'dataset': dataset}, **_growing(size))))
    assert section.title == 'Accuracy as synthetic data grows'
    (picture,) = blocks(section, Picture)
    texts = [text.get_text() for text in picture.image.axes[0].texts]
    assert texts.count('faint: the paper') == drawn
    assert blocks(section, Table)[0].caption.startswith('As Table 4 of the paper')


def test_runs_of_several_jobs_are_of_one_classifier_if_network_recipe_and_size_are_the_same():
  real, synthetic = classify('classify_real', real=REAL), classify('classify_more', synthetic=SYNTHETIC)
  other = classify('classify_wide', model=RESNET | {'width': 16}, synthetic=SYNTHETIC)
  assert [row[3] for row in _cells(classifiers(results(real, synthetic)))] == ['', '-25.00']
  # nothing to compare with
  assert [row[3] for row in _cells(classifiers(results(real, other)))] == ['', '']


def test_what_synthetic_images_are_worth_alone_is_said_first_of_each_classifier():
  raw = mixture(0, 1200, 0.25, finetuned=False)
  vit = classify('vit', 'ViT', model=VIT, real=REAL, synthetic=SYNTHETIC)
  section = classifiers(results(classify(real=mixture(600, top_1=0.8), synthetic=SYNTHETIC, raw=raw), vit))
  first, second = section.blocks[0].texts
  # 0.5 is 36 % of the way from a third to 0.8
  assert first == (
    'ResNet, tested on 1,234 real images that it has not seen, gets 80.00 ± 1.00 % of them right when it is '
    'trained on 600 real images. Trained on 600 synthetic ones alone, it gets 50.00 ± 1.00 % (the '
    'Classification Accuracy Score), where guessing gives 33.3 %: 36 % of what the real images give above '
    'that. The cascade that was not fine-tuned scores 25.00 ± 1.00 %. Mean ± standard deviation over 3 seeds.'
  )
  assert second.startswith('ViT, tested') and second.endswith(
    'above that. Mean ± standard deviation over 3 seeds.'
  )


def test_a_classifier_no_better_than_guessing_is_said_to_be_worthless_with_what_comes_next():
  said = lambda **mixtures: blocks(classifiers(results(classify(**mixtures))), Points)[0].texts[0]
  text = said(real=REAL, synthetic=mixture(0, 1200, 0.34))
  assert (
    'where guessing gives 33.3 %: worthless so far; next: more steps of training, a larger network. ' in text
  )
  text = said(real=mixture(600, top_1=0.34), synthetic=SYNTHETIC)
  assert (
    'even real images hardly train this classifier, so nothing can be said of synthetic ones; next: ' in text
  )
  assert '% of what the real images give' not in text


def test_what_one_seed_gets_alone_has_no_deviation():
  real, synthetic = mixture(600, top_1=0.8, std=None), mixture(0, 1200, 0.6, std=None)
  (text,) = blocks(classifiers(results(classify(real=real, synthetic=synthetic))), Points)[0].texts
  assert (
    'gets 80.00 % of them right' in text and 'it gets 60.00 % (the' in text and text.endswith('. One seed.')
  )
