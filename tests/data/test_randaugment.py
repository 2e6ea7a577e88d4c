import numpy as np
import pytest

from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.augment import Draws
from imagenet_synth.data.randaugment import OPERATIONS, RandAugment, change, randaugment

# what has no magnitude
_FIXED = {'autocontrast', 'equalize'}
_COLOURS = [1, 3]


def _image(channels=3, size=32):
  """Noise that has the values 0 and 255 in each channel."""
  image = np.random.default_rng(0).integers(0, 256, (size, size, channels), np.uint8)
  image[0, 0], image[0, 1] = 0, 255
  return image


def _randaugment(num, seed=0, channels=3, **settings):
  """Of `num` copies of one image."""
  images = np.stack([_image(channels)] * num)
  draws = Draws(np.random.default_rng(seed), np.arange(num), num)
  return images, randaugment(images, RandAugment(**settings), draws)


def test_operations_are_the_14_of_the_paper():
  assert len(OPERATIONS) == 14


@pytest.mark.parametrize('channels', _COLOURS)
@pytest.mark.parametrize('name', sorted(OPERATIONS))
def test_shapes_stay_at_any_strength(name, channels):
  for strength in (-1.5, -1.0, 0.3, 1.0, 2.0):
    out = change(_image(channels), name, strength)
    assert out.shape == (32, 32, channels) and out.dtype == np.uint8


@pytest.mark.parametrize('channels', _COLOURS)
@pytest.mark.parametrize('name', sorted(set(OPERATIONS) - _FIXED))
def test_no_magnitude_changes_nothing(name, channels):
  np.testing.assert_array_equal(change(_image(channels), name, 0.0), _image(channels))


def test_autocontrast_spreads_each_channel_over_the_range():
  np.testing.assert_array_equal(change(_image(), 'autocontrast', 1.0), _image())
  narrow = _image() // 4 + 50
  out = change(narrow, 'autocontrast', 1.0).astype(int)
  low, high = narrow.min(axis=(0, 1)).astype(int), narrow.max(axis=(0, 1))
  np.testing.assert_allclose(out, (narrow - low) * 255 / (high - low), atol=1)


def test_equalize_makes_values_equally_frequent():
  dark = (_image(1, 64).astype(int) ** 2 // 255).astype(np.uint8)
  out = change(dark, 'equalize', 1.0)
  assert dark.mean() < 95 and out.mean() == pytest.approx(127.5, abs=8)
  assert np.quantile(out, [0.25, 0.75]) == pytest.approx([64, 191], abs=16)


@pytest.mark.parametrize('strength', [0.25, -0.25, 1.0, 1.5])
def test_solarize_inverts_what_is_bright(strength):
  image, threshold = _image().astype(int), 256 * (1 - abs(strength))
  np.testing.assert_array_equal(
    change(_image(), 'solarize', strength), np.where(image < threshold, image, 255 - image)
  )


@pytest.mark.parametrize('strength, bits', [(0.5, 6), (-1.0, 4), (1.5, 2), (3.0, 1)])
def test_posterize_keeps_the_highest_bits(strength, bits):
  step = 2 ** (8 - bits)
  np.testing.assert_array_equal(change(_image(), 'posterize', strength), _image() // step * step)


@pytest.mark.parametrize('strength', [-1.5, -1.0, -0.5, 0.5, 1.0])
def test_enhancements_lie_on_the_line_through_their_grey(strength):
  image, factor = _image().astype(float), max(1 + 0.9 * strength, 0)
  grey = np.round(image @ [0.299, 0.587, 0.114])[..., None]
  for name, other in (('brightness', 0), ('color', grey), ('contrast', round(grey.mean()))):
    expected = np.clip(factor * image + (1 - factor) * other, 0, 255)
    np.testing.assert_allclose(change(_image(), name, strength), expected, atol=2.5)


def test_sharpness_has_two_directions():
  out = [change(_image() // 2 + 64, 'sharpness', strength) for strength in (-1.0, 0.0, 1.0)]
  roughness = [np.abs(np.diff(image.astype(int), axis=0)).mean() for image in out]
  assert roughness[0] < 0.7 * roughness[1] and roughness[2] > 1.1 * roughness[1]


@pytest.mark.parametrize('pixels', [3, -5])
@pytest.mark.parametrize('name, axis', [('translate_x', 1), ('translate_y', 0)])
def test_translations_are_shifts_and_grey_comes_in(name, axis, pixels):
  out = change(_image(), name, pixels / (150 / 331 * 32))
  expected = np.full_like(_image(), 128)
  kept, source = (
    (slice(None, -pixels), slice(pixels, None)) if pixels > 0 else (slice(-pixels, None), slice(None, pixels))
  )
  at = lambda where: (slice(None),) * axis + (where,)
  expected[at(kept)] = _image()[at(source)]
  np.testing.assert_allclose(out.astype(int), expected, atol=1)


@pytest.mark.parametrize('name, transposed', [('shear_x', False), ('shear_y', True)])
@pytest.mark.parametrize('strength', [1.0, -0.4])
def test_shears_move_a_line_by_its_distance_from_the_corner(name, transposed, strength):
  # on a slope, where interpolation is exact
  slope = np.broadcast_to(np.uint8(np.arange(32) * 4)[None, :, None], (32, 32, 1))
  turn = (lambda x: x.swapaxes(0, 1)) if transposed else (lambda x: x)
  out = turn(change(np.ascontiguousarray(turn(slope)), name, strength)).astype(float)[..., 0]
  y, x = np.indices((32, 32)) + 0.5
  source = x + 0.3 * strength * y
  inside = (source > 1) & (source < 31)
  np.testing.assert_allclose(out[inside], 4 * (source - 0.5)[inside], atol=1.01)
  assert (out[(source < 0) | (source > 32)] == 128).all()


def test_rotation_is_by_three_degrees_a_magnitude():
  slope = np.broadcast_to(np.uint8(np.arange(32) * 4 + 60)[None, :, None], (32, 32, 1))
  y, x = np.indices((32, 32)) - 15.5
  inside = np.hypot(x, y) < 14
  for strength in (1.0, -0.5):
    angle = np.deg2rad(30 * strength)
    # counterclockwise: the source lies clockwise, and y points down
    source = x * np.cos(angle) - y * np.sin(angle) + 15.5
    out = change(np.ascontiguousarray(slope), 'rotate', strength)[..., 0].astype(float)
    np.testing.assert_allclose(out[inside], 4 * source[inside] + 60, atol=1.01)


@pytest.mark.parametrize('channels', _COLOURS)
def test_one_layer_is_each_operation_in_both_directions_equally_often(channels):
  images, out = _randaugment(600, num_layers=1, magnitude=6.0, channels=channels)
  known = {}
  for name in OPERATIONS:
    for sign in (-0.6, 0.6):
      known.setdefault(change(images[0], name, sign).tobytes(), []).append((name, sign))
  counts = dict.fromkeys(map(tuple, known.values()), 0)
  for image in out:
    counts[tuple(known[image.tobytes()])] += 1
  for operations, count in counts.items():
    expected = 600 * len(operations) / 28
    # five standard deviations
    assert abs(count - expected) < 5 * np.sqrt(expected), operations


def test_layers_follow_each_other_and_are_left_out_by_their_probability():
  images, out = _randaugment(200, num_layers=0, magnitude=9.0)
  np.testing.assert_array_equal(out, images)
  _, out = _randaugment(200, num_layers=2, magnitude=9.0, probability=0.0)
  np.testing.assert_array_equal(out, images)
  # unchanged: of 14 operations, the identity, and autocontrast, as the image has the full range
  for settings, share in (
    (dict(num_layers=1), 2 / 14),
    (dict(num_layers=2), (2 / 14) ** 2),
    (dict(num_layers=1, probability=0.5), 0.5 + 1 / 14),
  ):
    _, out = _randaugment(1000, magnitude=9.0, **settings)
    same = (out == images[0]).all(axis=(1, 2, 3)).mean()
    assert same == pytest.approx(share, abs=5 * np.sqrt(share / 1000)), settings


def test_a_deviation_spreads_the_magnitude():
  _, out = _randaugment(300, num_layers=1, magnitude=5.0)
  _, spread = _randaugment(300, num_layers=1, magnitude=5.0, deviation=0.5)
  kinds, spread_kinds = (len({image.tobytes() for image in x}) for x in (out, spread))
  assert kinds <= 28 and spread_kinds > 100


@pytest.mark.parametrize('name', ['num_layers', 'magnitude', 'deviation'])
def test_negative_settings_are_refused(name):
  with pytest.raises(InputError, match=f'randaugment.{name} is -1, must be at least 0'):
    build(RandAugment, {name: -1}, 'randaugment')


def test_a_row_is_the_same_whatever_else_is_wanted():
  images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
  fn = lambda rows: randaugment(
    images[rows], RandAugment(2, 9.0, 0.5, 0.5), Draws(np.random.default_rng(5), rows, 10)
  )
  whole = fn(np.arange(10))
  for rows in (np.array([3]), np.array([9, 0, 7])):
    np.testing.assert_array_equal(fn(rows), whole[rows])
