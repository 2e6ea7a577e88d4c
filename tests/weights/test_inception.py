"""FID's Inception-v3 with converted weights against torch-fidelity's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.inception import InceptionV3, resize
from imagenet_synth.weights import inception
from tests.fixtures import reference


@pytest.fixture(scope='module')
def weights_path(tmp_path_factory):
  path = tmp_path_factory.mktemp('inception') / 'weights.npz'
  np.savez(path, **reference.tensors('inception', gain=2.0))
  return path


def test_agrees_with_torch_fidelity_and_does_not_depend_on_the_batch(weights_path):
  params = inception.load(weights_path)
  io = reference.outputs('inception')
  network = jax.jit(InceptionV3().apply)
  outputs = network({'params': params}, io['images'])
  assert set(outputs) == set(io) - {'images'}
  for name, value in outputs.items():
    assert reference.relative_error(value, io[name]) < 1e-5, name
  alone = network({'params': params}, io['images'][1:])
  assert reference.relative_error(alone['2048'][0], io['2048'][1]) < 1e-5


@pytest.mark.parametrize(
  'change, message',
  [
    ({'fc.bias': None}, '1 missing, first fc.bias'),
    ({'AuxLogits.fc.bias': np.zeros(3, np.float32)}, '1 unexpected, first AuxLogits.fc.bias'),
    ({'fc.bias': np.zeros(1000, np.float32)}, r'fc.bias has shape \(1000,\), expected \(1008,\)'),
  ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, message):
  lines = {
    name: np.broadcast_to(np.float32(0), np.shape(value))
    for name, value in reference.tensors('inception').items()
  }
  tensors = {name: value for name, value in (lines | change).items() if value is not None}
  np.savez_compressed(tmp_path / 'w.npz', **tensors)
  with pytest.raises(InputError, match=message):
    inception.load(tmp_path / 'w.npz')


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
  (tmp_path / 'w.pth').write_bytes(b'\x80\x04.')
  with pytest.raises(InputError, match=r'w.pth: a pickle .*safetensors.torch.save_file'):
    inception.load(tmp_path / 'w.pth')


@pytest.mark.parametrize('length', [8, 19, 30])
def test_resize_takes_the_pixels_that_tensorflow_1_took(length):
  image = np.random.default_rng(0).integers(0, 256, (length, length)).astype(np.float64)
  expected = np.empty((19, 19))
  for i in range(19):
    for j in range(19):
      y, x = i * length / 19, j * length / 19
      y_0, x_0 = int(y), int(x)
      y_1, x_1 = min(y_0 + 1, length - 1), min(x_0 + 1, length - 1)
      above = image[y_0, x_0] * (1 - (x - x_0)) + image[y_0, x_1] * (x - x_0)
      below = image[y_1, x_0] * (1 - (x - x_0)) + image[y_1, x_1] * (x - x_0)
      expected[i, j] = above * (1 - (y - y_0)) + below * (y - y_0)
  out = resize(jnp.float32(image)[None, :, :, None], 19)[0, :, :, 0]
  np.testing.assert_allclose(out, expected, atol=1e-3)
