"""What is drawn is what was given. Warnings are errors, so rendering is part of each test."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.report import figures

_SWEEP = {0.3: [(5, 18.4), (1, 8.7), (1.25, 5.2)], 0.0: [(1, 7.8), (1.25, 4.8), (5, 18.4)]}


def _render(picture):
  png = figures.to_png_bytes(picture)
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
  assert _render(figure).width == 1200
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
  assert {'Top-1', 'Real data, top-1: 60.20'} <= set(_texts(figure))


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
  np.testing.assert_array_equal(real, [(76.39, 0), (79.89, 1)])
  np.testing.assert_array_equal(synthetic, [(69.24, 0), (71.88, 1)])
  np.testing.assert_array_equal(both, [(78.12, 0), (79.59, 1)])
  assert {'+1.73 (+1.40 to +2.06)', '\N{MINUS SIGN}0.30'} <= set(_texts(figure))
  assert all(np.isfinite(text.xy).all() for text in figure.axes[0].texts)
  assert _legend(figure) == ['Real', 'Synthetic', 'Real + synthetic']


@pytest.mark.parametrize('channels', [1, 3])
def test_image_grid_shows_every_pixel_crisply(channels):
  images = np.random.default_rng(1).integers(0, 256, (2, 3, 24, 30, channels), np.uint8)
  grid = np.asarray(figures.image_grid(images, ['0', 'one'], ['a', 'b', 'c']))
  height, width, gap = 24, 30, 4
  left, top = grid.shape[1] - 3 * (width + gap), grid.shape[0] - 2 * (height + gap)
  for row in range(2):
    for column in range(3):
      y, x = top + row * (height + gap), left + column * (width + gap)
      expected = images[row, column]
      np.testing.assert_array_equal(
        grid[y : y + height, x : x + width], np.broadcast_to(expected, (height, width, 3))
      )
  assert (grid[:top] < 128).any() and (grid[top:, :left] < 128).any(), 'labels are missing'


def test_bytes_are_the_same_each_time_and_the_uri_holds_them():
  first = figures.to_png_bytes(figures.guidance_fid(_SWEEP))
  assert figures.to_png_bytes(figures.guidance_fid(_SWEEP)) == first
  uri = figures.to_data_uri(figures.guidance_fid(_SWEEP))
  prefix = 'data:image/png;base64,'
  assert uri.startswith(prefix)
  assert base64.b64decode(uri.removeprefix(prefix)) == first
