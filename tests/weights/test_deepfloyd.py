"""DeepFloyd IF's U-Nets with converted weights against diffusers, and what a wrong file is told."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from imagenet_synth.core.errors import InputError
from imagenet_synth.diffusion.schedule import Schedule
from imagenet_synth.models.deepfloyd import IFUNet, diffusion_step
from imagenet_synth.weights import deepfloyd
from tests.fixtures import reference

_FIXTURES = Path(__file__).parents[1] / 'fixtures' / 'deepfloyd'
_CONV = 'up_blocks.0.resnets.1.conv1.weight'


def _network(name, **more):
  return IFUNet(**deepfloyd.network_fields(_FIXTURES / name), **more)


def _write(path, tensors):
  safetensors.numpy.save_file(tensors, path / 'diffusion_pytorch_model.safetensors')
  return path


def _logsnr(step):
  return Schedule('iddpm').logsnr((step + 1) / 1000)


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('name', ['tiny_if1', 'tiny_if2', 'tiny_if2_xonly'])
def test_agrees_with_diffusers(tmp_path, name, remat):
  network = _network(name, remat=remat)
  io = reference.outputs(f'deepfloyd/{name}')
  tensors = reference.tensors(f'deepfloyd/{name}')
  params = deepfloyd.load(_write(tmp_path, tensors), network, io['x'].shape[-1], 48)
  sr = (io['x'][..., 3:], _logsnr(io['aug_step'])) if name != 'tiny_if1' else ()
  y = jax.jit(network.apply)({'params': params}, io['x'][..., :3], _logsnr(io['step']), io['text'], *sr)
  assert y.dtype == np.float32
  # at both ends of the schedule, too
  assert {0, 1, 412, 998, 999} < set(io['step'])
  errors = [reference.relative_error(*pair) for pair in zip(np.asarray(y), io['y'])]
  assert max(errors) < 5e-5


@pytest.mark.parametrize('compiled', [False, True])
def test_every_step_of_the_schedule_is_told_back(compiled):
  step, tell = np.arange(1000), lambda step: diffusion_step(_logsnr(step))
  # a float32 of 999 has digits to 6e-5
  np.testing.assert_allclose((jax.jit(tell) if compiled else tell)(step), step, atol=1.3e-4)


def test_every_noise_level_of_the_published_table_has_its_step():
  logsnr = np.float32(reference.iddpm_logsnr())
  np.testing.assert_allclose(diffusion_step(logsnr), np.arange(1000), atol=1e-4)


def test_between_steps_the_network_is_told_what_is_between_them():
  # the last step is one of its own: its beta is cut
  step = diffusion_step(Schedule('iddpm').logsnr(np.linspace(0.001, 1, 9991)))
  np.testing.assert_allclose(np.diff(step), 0.1, atol=1e-3)


@pytest.mark.parametrize(
  'change, message',
  [
    ({_CONV: None}, f'1 missing, first {_CONV}'),
    ({'up_blocks.9.x': np.ones(3, np.float32)}, '1 unexpected, first up_blocks.9.x'),
    (
      {_CONV: np.ones((64, 96, 1, 1), np.float32)},
      rf'{_CONV} has shape \(64, 96, 1, 1\), expected \(64, 96, 3, 3\)',
    ),
    ({_CONV: np.ones((64, 96, 3, 3), np.int8)}, f'{_CONV} is int8'),
  ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, message):
  tensors = {**reference.tensors('deepfloyd/tiny_if1'), **change}
  _write(tmp_path, {name: value for name, value in tensors.items() if value is not None})
  with pytest.raises(InputError, match=message):
    deepfloyd.load(tmp_path, _network('tiny_if1'), 3, 48)


def test_the_weights_of_the_other_stage_are_refused(tmp_path):
  _write(tmp_path, reference.tensors('deepfloyd/tiny_if2'))
  with pytest.raises(InputError, match='unexpected, first class_embedding.linear_1.bias'):
    deepfloyd.load(tmp_path, _network('tiny_if2'), 3, 48)


def test_a_network_of_another_kind_is_refused(tmp_path):
  config = json.loads((_FIXTURES / 'tiny_if1' / 'config.json').read_text())
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(config | {'act_fn': 'silu'}))
  with pytest.raises(InputError, match="act_fn is 'silu', of a DeepFloyd IF U-Net it is 'gelu'"):
    deepfloyd.network_fields(tmp_path)
  del config['cross_attention_dim']
  path.write_text(json.dumps(config))
  with pytest.raises(InputError, match="no key 'cross_attention_dim' in config.json"):
    deepfloyd.network_fields(tmp_path)
  path.unlink()
  with pytest.raises(InputError, match='no config.json of a DeepFloyd IF U-Net'):
    deepfloyd.network_fields(tmp_path)


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
  (tmp_path / 'diffusion_pytorch_model.bin').write_bytes(b'\x80\x04.')
  with pytest.raises(InputError, match=r'a pickle .*UNet2DConditionModel.*save_pretrained'):
    deepfloyd.load(tmp_path, _network('tiny_if1'), 3, 48)


# counts of the published networks, as diffusers counts them
@pytest.mark.parametrize(
  'fields, low_res, count',
  [
    (dict(channels=(192, 384, 576, 768), cross_attention_size=768), False, 371_605_830),
    (dict(channels=(320, 640, 960, 1280), cross_attention_size=1280), False, 935_365_830),
    (dict(channels=(704, 1408, 2112, 2816), cross_attention_size=2816), False, 4_304_695_110),
    (dict(channels=(160, 320, 640, 960, 1280), cross_attention_size=1280), True, 1_243_277_190),
  ],
)
def test_the_published_sizes(fields, low_res, count):
  layers = (2, 2, 3, 5, 5) if low_res else (3, 3, 3, 3)
  attention = (False, False, False, True, True) if low_res else (False, True, True, True)
  network = IFUNet(layers_per_block=layers, attention=attention, **fields)
  image, level = np.zeros((1, 64, 64, 3), np.float32), np.zeros(1, np.float32)
  sr = (image, level) if low_res else ()
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), image, level, np.zeros((1, 7, 4096), np.float32), *sr
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
