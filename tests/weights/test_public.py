"""Public networks with random weights: against timm, and how DINOv2 sees images as EDM2's program does it."""

import functools

import jax
import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.resnet import ResNetRS50
from imagenet_synth.models.vit import ViT
from imagenet_synth.weights import resnet, vit
from imagenet_synth.weights.public import PUBLIC_NETWORKS
from tests.fixtures import reference

_TINY = ViT(patch_size=14, width=32, depth=2, num_heads=2, pixels='imagenet')


def _written(name, tmp_path, change=()):
  tensors = reference.tensors(name) | dict(change)
  path = tmp_path / 'weights.npz'
  np.savez(path, **{key: tensor for key, tensor in tensors.items() if tensor is not None})
  return path


def _eval(model, variables, x):
  return jax.jit(functools.partial(model.apply, train=False))(variables, x)


@pytest.fixture(scope='module')
def dinov2(tmp_path_factory):
  """(A small DINOv2, its variables.)"""
  network = PUBLIC_NETWORKS['dinov2_vitl14']._replace(model=_TINY)
  # what its own program has beside timm's tensors
  mask = {'mask_token': np.zeros((1, 32), np.float32)}
  return network, network.load(_written('dinov2', tmp_path_factory.mktemp('weights'), mask))


@pytest.mark.parametrize('size', [64, 256])
def test_dinov2_has_the_features_that_edm2_compares(dinov2, size):
  """Of small images, which are enlarged, and of large ones."""
  network, variables = dinov2
  rng = np.random.default_rng(5)
  pictures = {side: rng.integers(0, 256, (2, side, side, 3), np.uint8) for side in (64, 256)}
  outputs = jax.jit(network.outputs)(variables, pictures[size])
  expected = reference.outputs('dinov2')[f'features_{size}']
  assert reference.relative_error(outputs.features, expected) < 1e-5
  assert outputs.logits.shape == (2, 0)


def test_positions_of_dinov2_are_interpolated_as_its_program_does_it(dinov2):
  """Half a percent off, they would still give about the same features."""
  positions = dinov2[1]['params']['positions']
  assert positions.shape == (1, 257, 32)
  np.testing.assert_allclose(positions[0, ::37], reference.outputs('dinov2')['positions'], atol=2e-6)


def test_what_is_read_of_a_network_is_what_is_looked_for_in_a_checkpoint(dinov2):
  network, variables = dinov2
  shapes = jax.tree.map(np.shape, variables)
  assert shapes == jax.tree.map(lambda leaf: leaf.shape, network.like)


@pytest.mark.parametrize('name, size', [('resnet50', 64), ('vit_small_patch16_224', 224)])
def test_classifiers_agree_with_timm(name, size, tmp_path):
  network = PUBLIC_NETWORKS[{'vit_small_patch16_224': 'vit_s16'}.get(name, name)]
  variables = network.load(_written(f'classifiers/{name}', tmp_path))
  expected = reference.outputs(f'classifiers/{name}')
  # images that are normalised already
  model = network.model.clone(pixels='symmetric')
  outputs = _eval(model, variables, reference.images(size))
  assert reference.relative_error(outputs.features, expected['features']) < 1e-4
  assert reference.relative_error(outputs.logits, expected['logits']) < 1e-4


def test_a_resnet_rs_agrees_with_timm(tmp_path):
  model = ResNetRS50(num_classes=1000)
  variables = resnet.load(_written('classifiers/resnetrs50', tmp_path), model)
  expected = reference.outputs('classifiers/resnetrs50')
  outputs = _eval(model, variables, reference.images(64))
  assert reference.relative_error(outputs.features, expected['features']) < 1e-4
  assert reference.relative_error(outputs.logits, expected['logits']) < 1e-4


@pytest.mark.parametrize('name', PUBLIC_NETWORKS)
def test_classifiers_see_pixels_as_they_were_trained(name):
  """ViTs of timm alone in [-1, 1]."""
  network = PUBLIC_NETWORKS[name]
  assert network.model.pixels == ('symmetric' if name.startswith('vit_') else 'imagenet')
  assert network.size % getattr(network.model, 'size_divisor', 32) == 0


@pytest.mark.parametrize(
  'change, message',
  [
    ({'norm.bias': None}, '1 missing, first norm.bias'),
    ({'blocks.0.ls1.gamma': None}, '1 missing, first blocks.0.ls1.gamma'),
    ({'register_tokens': np.zeros(3, np.float32)}, '1 unexpected, first register_tokens'),
    (
      {'pos_embed': np.zeros((1, 257, 32), np.float32)},
      r'pos_embed has shape \(1, 257, 32\), expected \(1, 1370, 32\) of a DINOv2 ViT',
    ),
  ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, message):
  with pytest.raises(InputError, match=message):
    vit.load_dinov2(_written('dinov2', tmp_path, change), _TINY, 224)
