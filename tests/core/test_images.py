import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from imagenet_synth.core import images


def _random(*shape):
  return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _pil_resize(batch, size):
  """PIL's antialiased bilinear filter in float32, a channel at a time."""
  resized = [
    [
      np.asarray(PIL.Image.fromarray(image[..., c]).resize((size, size), PIL.Image.Resampling.BILINEAR))
      for c in range(image.shape[-1])
    ]
    for image in batch
  ]
  return np.moveaxis(np.array(resized), 1, -1)


def test_every_byte_survives_the_round_trip():
  values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
  floats = images.to_float(values)
  assert floats.dtype == jnp.float32 and floats.min() == -1 and floats.max() == 1
  back = images.to_uint8(floats)
  assert back.dtype == jnp.uint8
  np.testing.assert_array_equal(back, values)


def test_bytes_are_rounded_and_clipped():
  levels = np.array([-40.0, 0.4, 0.6, 1.4, 127.5, 128.5, 254.6, 300.0], np.float32)
  out = images.to_uint8(jnp.asarray(levels / 127.5 - 1))
  np.testing.assert_array_equal(out[jnp.array([0, 1, 2, 3, 6, 7])], [0, 0, 1, 1, 255, 255])
  # exactly half way, which float32 has at 0 alone: to the even one
  assert images.to_uint8(jnp.zeros(1))[0] == 128


@pytest.mark.parametrize('size, small', [(32, 8), (32, 12), (64, 16)])
def test_downsample_is_antialiased_as_in_pil(size, small):
  batch = _random(2, size, size, 3)
  out = images.downsample(jnp.asarray(batch), small)
  assert out.shape == (2, small, small, 3)
  np.testing.assert_allclose(out, _pil_resize(batch, small), atol=1e-5)


def test_images_of_a_batch_are_mirrored_on_the_device_where_it_says_so():
  pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 2), np.uint8)
  plain = images.to_float(pixels)
  np.testing.assert_array_equal(images.of_batch({'image': pixels}), plain)
  out = images.of_batch({'image': jnp.asarray(pixels), 'mirrored': jnp.array([False, True, False])})
  np.testing.assert_array_equal(out, np.stack([plain[0], plain[1][:, ::-1], plain[2]]))


def test_downsample_to_the_same_size_is_the_identity():
  batch = jnp.asarray(_random(2, 8, 8, 1))
  np.testing.assert_array_equal(images.downsample(batch, 8), batch)


@pytest.mark.parametrize('size', [16, 32, 20])
def test_upsample_is_bilinear_as_in_pil(size):
  batch = _random(2, 8, 8, 3)
  np.testing.assert_allclose(images.upsample(jnp.asarray(batch), size), _pil_resize(batch, size), atol=1e-5)


def test_resizing_keeps_a_constant_image():
  batch = jnp.full((1, 16, 16, 3), -0.25)
  np.testing.assert_allclose(images.downsample(batch, 4), -0.25, atol=1e-6)
  np.testing.assert_allclose(images.upsample(batch, 64), -0.25, atol=1e-6)


def test_grid_fills_rows_with_white_gaps():
  batch = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((5, 2, 3, 3), np.uint8)
  picture = images.grid(batch, num_columns=3, scale=2, gap=1)
  # 2 rows of 4 pixels, 3 columns of 6, and the gaps between them
  assert picture.shape == (9, 20, 3) and picture.dtype == np.uint8
  assert np.all(picture[:4, :6] == 0) and np.all(picture[:4, 7:13] == 1)
  assert np.all(picture[:4, 14:] == 2) and np.all(picture[5:, :6] == 3)
  assert np.all(picture[5:, 7:13] == 4)
  assert np.all(picture[4] == 255) and np.all(picture[:, 6] == 255)
  assert np.all(picture[5:, 14:] == 255)


def test_grid_repeats_pixels():
  image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
  picture = images.grid(image, num_columns=1, scale=3)
  np.testing.assert_array_equal(picture, np.kron(image[0], np.ones((3, 3, 1), np.uint8)))


@pytest.mark.parametrize('length, size', [(4, 16), (3, 7), (8, 8)])
def test_aligned_corners_interpolate_between_the_centres_of_corner_pixels(length, size):
  image = _random(1, length, length, 2)
  out = images.upsample(jnp.asarray(image), size, align_corners=True)
  position = np.linspace(0, length - 1, size)
  along = lambda x, axis: np.apply_along_axis(
    lambda values: np.interp(position, np.arange(length), values), axis, x
  )
  np.testing.assert_allclose(out, along(along(image, 1), 2), atol=2e-6)
