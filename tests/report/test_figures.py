"""What is drawn is what was given. Warnings are errors, so rendering is part of each test."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from imagenet_synth.report import figures
from imagenet_synth.report.pictures import to_png

_SWEEP = {0.3: [(5, 18.4), (1, 8.7), (1.25, 5.2)], 0.0: [(1, 7.8), (1.25, 4.8), (5, 18.4)]}


def _render(picture):
  png = to_png(picture)
  return Image.open(io.BytesIO(png))


def _line(figure, index=0):
  """[N, 2] points of a line."""
  return np.asarray(figure.axes[0].lines[index].get_xydata(), float)


def _texts(figure):
  return [text.get_text() for text in figure.axes[0].texts]


def _legend(figure):
  return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_guidance_fid_draws_a_sorted_line_for_each_coefficient():
  figure = figures.guidance_fid(_SWEEP)
  assert _render(figure).width == 1000
  np.testing.assert_array_equal(_line(figure, 0), [(1, 7.8), (1.25, 4.8), (5, 18.4)])
  np.testing.assert_array_equal(_line(figure, 1), [(1, 8.7), (1.25, 5.2), (5, 18.4)])
  assert _legend(figure) == ['0', '0.3']
  assert _texts(figure) == ['4.8 at 1.25']
  assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ['1', '1.25', '5']


def test_the_paper_is_drawn_faintly_and_named_once():
  theirs = {0.0: [(1, 7.8), (5, 18.4)], 0.3: [(1, 8.5), (5, 18.0)], 1.0: [(1, 12), (5, 18)]}
  figure = figures.guidance_fid(_SWEEP, theirs)
  _render(figure)
  faint = [line for line in figure.axes[0].lines if line.get_alpha() == 0.4]
  assert [line.get_xydata().tolist() for line in faint] == [[[1, 7.8], [5, 18.4]], [[1, 8.5], [5, 18.0]]]
  assert _texts(figure).count('faint: the paper') == 1
  assert _legend(figure) == ['0', '0.3']
  for figure in (
    figures.fid_is([(1, 2, 30), (2, 3, 50)], [(1, 1.5, 50), (5, 21.7, 236)]),
    figures.guidance_cas([(1, 30, 1), (2, 20, None)], paper=[(1, 32.5), (5, 12.5)]),
    figures.cas_fid({0.1: [(0, 2, 60), (0.1, 3, 50)]}, {0.1: [(0, 1.77, 65)]}),
  ):
    _render(figure)
    assert 'faint: the paper' in _texts(figure)


def test_guidance_fid_keeps_every_line_of_a_long_sweep():
  figure = figures.guidance_fid({i / 20: [(1, i), (2, i + 1)] for i in range(12)})
  _render(figure)
  assert len(_legend(figure)) == 12


@pytest.mark.parametrize('guidance', [[1], [0, 1, 2], [1, 1.25, 30]])
def test_any_guidance_weights_can_be_drawn(guidance):
  figure = figures.guidance_fid({0.0: [(w, 5 + w) for w in guidance]})
  _render(figure)
  np.testing.assert_array_equal(_line(figure)[:, 0], guidance)


def test_fid_is_labels_each_point_with_its_guidance():
  figure = figures.fid_is([(1.25, 1.2, 85), (1, 1.5, 50), (5, 21.7, 236)])
  _render(figure)
  np.testing.assert_array_equal(_line(figure, 1), [(1.5, 50), (1.2, 85), (21.7, 236)])
  assert _texts(figure)[:3] == ['1', '1.25', '5']


def test_guidance_cas_draws_means_bands_and_real_data():
  figure = figures.guidance_cas([(2, 27.5, 0.5), (1, 32.5, 1.0)], real=(60.2, 0.1))
  _render(figure)
  np.testing.assert_array_equal(_line(figure, 0), [(1, 32.5), (2, 27.5)])
  np.testing.assert_array_equal(_line(figure, 1)[:, 1], [60.2, 60.2])
  band = figure.axes[0].collections[0].get_paths()[0].vertices
  assert {(1.0, 31.5), (1.0, 33.5), (2.0, 27.0), (2.0, 28.0)} <= set(map(tuple, band))
  assert 'Real data, top-1: 60.20' in _texts(figure)


def test_one_seed_has_no_band():
  figure = figures.guidance_cas([(1, 30, None), (2, 33, None)], real=(40.0, None))
  _render(figure)
  assert 'One seed' in _texts(figure)
  assert not figure.axes[0].patches


def test_cas_fid_labels_points_with_the_augmentation_level():
  figure = figures.cas_fid({0.1: [(0.1, 2.05, 63.8), (0.0, 1.77, 65.0)], 0.3: [(0.0, 1.77, 64.0)]})
  _render(figure)
  np.testing.assert_array_equal(_line(figure, 0), [(1.77, 65.0), (2.05, 63.8)])
  np.testing.assert_array_equal(_line(figure, 1), [(1.77, 64.0)])
  assert _texts(figure)[:3] == ['0', '0.1', '0']


def test_per_class_sorts_by_accuracy_on_real_data():
  figure = figures.per_class(
    ['crane', 'tench', '$5 bill', 'none'], [50, 90, 70, np.nan], [60, 80, 10, np.nan]
  )
  _render(figure)
  names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
  assert names == ['tench', '$5 bill', 'crane', 'none']
  np.testing.assert_array_equal(_line(figure, 0)[:, 0], [90, 70, 50, np.nan])
  np.testing.assert_array_equal(_line(figure, 1)[:, 0], [80, 10, 60, np.nan])
  top, bottom = figure.axes[0].transData.transform([(50, 0), (50, 3)])[:, 1]
  assert top > bottom


def test_per_class_of_many_classes_is_drawn_by_rank():
  rng = np.random.default_rng(0)
  real, synthetic = rng.uniform(0, 100, size=(2, 1000))
  figure = figures.per_class([str(i) for i in range(1000)], real, synthetic)
  _render(figure)
  np.testing.assert_array_equal(_line(figure, 0)[:, 1], np.sort(real)[::-1])
  np.testing.assert_array_equal(_line(figure, 1)[:, 1], synthetic[np.argsort(-real)])


def test_scaling_starts_from_real_data_alone():
  figure = figures.scaling([(2_400_000, 71.5, 0.1), (1_200_000, 70.65, None)], real=(68.65, 0.2))
  _render(figure)
  lines = [line.get_xydata().tolist() for line in figure.axes[0].lines]
  assert [[1_200_000, 70.65], [2_400_000, 71.5]] in lines
  assert [[0, 68.65], [1_200_000, 70.65]] in lines
  figure.canvas.draw()
  assert '2M' in [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
  assert 'Real data alone: 68.65' in _texts(figure)


def test_scaling_without_real_data():
  figure = figures.scaling([(500, 80.0, 1.0)])
  _render(figure)
  np.testing.assert_array_equal(_line(figure), [(500, 80.0)])


def test_real_vs_both_draws_three_marks_and_the_gain_for_each_model():
  figure = figures.real_vs_both(
    [
      ('ResNet-50', (76.39, 0.21), (69.24, 0.1), (78.12, 0.05), '+1.73 (+1.40 to +2.06)'),
      ('ViT-S/16', (79.89, None), (71.88, None), (79.59, np.nan), '-0.30'),
    ]
  )
  _render(figure)
  real, synthetic, both = (container[0].get_xydata() for container in figure.axes[0].containers)
  assert real[:, 0].tolist() == [76.39, 79.89] and synthetic[:, 0].tolist() == [69.24, 71.88]
  assert both[:, 0].tolist() == [78.12, 79.59]
  # a row each, below its head
  (first, second), heads = both[:, 1], [text.get_position()[1] for text in figure.axes[0].texts[:4:2]]
  assert heads[0] < first < heads[1] < second
  assert {'+1.73 (+1.40 to +2.06)', '\N{MINUS SIGN}0.30'} <= set(_texts(figure))
  assert _legend(figure) == ['Real', 'Synthetic', 'Real + synthetic']


def test_gains_have_their_intervals_and_one_that_is_not_known_is_hollow():
  rows = [
    figures.Interval(
      'a long name that does not fit beside the text on its right', 7.5, (7.0, 8.0), '+7.5 (+7 to +8)'
    ),
    figures.Interval('a control', -1.0, (-2.0, 0.5), '-1', is_control=True),
    figures.Interval('unknown', 2.0, None, '+2'),
  ]
  figure = figures.gains(rows)
  _render(figure)
  zero, *lines = figure.axes[0].lines
  assert zero.get_xdata() == [0, 0]
  ends, points = lines[:4:2], [*lines[1:4:2], lines[4]]
  assert [line.get_xdata().tolist() for line in ends] == [[7, 8], [-2, 0.5]]
  assert [point.get_xdata().tolist() for point in points] == [[7.5], [-1], [2]]
  assert [point.get_markerfacecolor() == 'none' for point in points] == [False, False, True]
  assert ends[0].get_color() != ends[1].get_color()
  first, *_ = texts = _texts(figure)
  assert '\n' in first and '\N{MINUS SIGN}1' in texts


def test_no_text_of_a_row_runs_into_another():
  rows = [
    figures.Interval(
      'ResNet, 10 a class at 8: 100 real + 2,000 ' * 2, i, (i - 1, i + 1), '+10.0 (+10.0 to +10.0)'
    )
    for i in range(6)
  ]
  figure = figures.gains(rows)
  FigureCanvasAgg(figure).draw()
  boxes = [text.get_window_extent() for text in figure.axes[0].texts]
  assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize('num', [1, 2, 5])
def test_losses_have_a_panel_each_and_kinds_are_named_once(num):
  curves = [
    figures.Curve('real', [50, 100], [2.0, 1.0], '#0072b2'),
    figures.Curve('both', [100], [1.5], '#009e73'),
  ]
  figure = figures.losses([(f'job_{i}', curves) for i in range(num)])
  _render(figure)
  assert [axes.get_title(loc='left') for axes in figure.axes] == [f'job_{i}' for i in range(num)]
  assert figure.axes[-1].lines[0].get_xydata().tolist() == [[50, 2], [100, 1]]
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ['real', 'both']
