import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.devices import batch_sharding, make_mesh
from imagenet_synth.train.mixing import mix, own_share


def _shares(num, size, mixup_alpha, cutmix_alpha):
  keys = jax.random.split(jax.random.key(0), num)
  return np.asarray(jax.vmap(lambda key: own_share(key, size, mixup_alpha, cutmix_alpha))(keys))


def test_mix_is_with_the_row_before():
  x = jnp.arange(6.0).reshape(3, 2)
  np.testing.assert_allclose(mix(x, jnp.float32(0.75)), [[1, 2], [1.5, 2.5], [3.5, 4.5]])
  np.testing.assert_array_equal(mix(x, jnp.float32(1)), x)


def test_rows_are_mixed_across_devices():
  x = np.random.default_rng(0).normal(size=(16, 4, 4, 3)).astype(np.float32)
  share = np.random.default_rng(1).random((1, 4, 4, 1), np.float32)
  mesh = make_mesh(fsdp=2)
  out = jax.jit(mix)(jax.device_put(x, batch_sharding(mesh)), share)
  assert len(out.addressable_shards) == 8
  np.testing.assert_allclose(out, share * x + (1 - share) * np.roll(x, 1, axis=0), atol=1e-6)


@pytest.mark.parametrize('alpha', [0.2, 0.8, 1.0])
def test_mixup_is_one_number_of_a_beta_distribution(alpha):
  shares = _shares(2000, 4, alpha, 0.0)
  assert shares.shape == (2000, 1, 4, 4, 1) and shares.dtype == np.float32
  numbers = shares[:, 0, 0, 0, 0]
  assert (shares == numbers[:, None, None, None, None]).all()
  assert numbers.min() >= 0 and numbers.max() <= 1
  # mean 1/2, variance 1 / (4 (2 alpha + 1))
  assert numbers.mean() == pytest.approx(0.5, abs=0.05)
  assert numbers.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix_is_a_box_that_is_the_other_image():
  size, num = 32, 1000
  shares = _shares(num, size, 0.0, 1.0)
  assert set(np.unique(shares)) == {0, 1}
  others = shares[:, 0, :, :, 0] == 0
  heights, widths = others.any(axis=2).sum(axis=1), others.any(axis=1).sum(axis=1)
  # a full rectangle, and a square where the border does not cut it
  np.testing.assert_array_equal(others.sum(axis=(1, 2)), heights * widths)
  inside = ~(others[:, [0, -1]].any(axis=(1, 2)) | others[:, :, [0, -1]].any(axis=(1, 2)))
  assert inside.sum() > 50 and (np.abs(heights - widths)[inside] <= 1).all()
  # centres anywhere: each pixel is the other image's as often as its mirror image is
  places = others.mean(axis=0)
  np.testing.assert_allclose(places, places[::-1], atol=0.09)
  np.testing.assert_allclose(places, places.T, atol=0.09)


def test_cutmix_weights_labels_by_the_area_exactly():
  for key in jax.random.split(jax.random.key(1), 20):
    share = own_share(key, 28, 0.0, 1.0)
    # images of a class are of one colour
    labels = jnp.eye(5)[np.array([0, 3, 2, 2])]
    images = jnp.broadcast_to(labels[:, None, None], (4, 28, 28, 5))
    mixed, targets = mix(images, share), mix(labels, share.mean())
    np.testing.assert_allclose(jnp.mean(mixed == 1, axis=(1, 2)), targets, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=-1), 1, rtol=1e-6)


def test_cutmix_area_before_it_is_cut_off_is_that_of_the_distribution():
  # boxes that lie inside are of the whole area; small ones always do, nearly
  areas = 1 - _shares(4000, 64, 0.0, 1.0).mean(axis=(1, 2, 3, 4))
  # of lambda uniform, a share of 1 - lambda < 0.01 is a hundredth, and few others are cut as small
  assert 0.008 < np.mean(areas < 0.01) < 0.04
  assert areas.max() > 0.9


def test_a_coin_says_which_of_the_two():
  shares = _shares(1000, 16, 1.0, 1.0)
  boxes = ((shares == 0) | (shares == 1)).all(axis=(1, 2, 3, 4))
  # five standard deviations
  assert abs(boxes.sum() - 500) < 80
