import jax
import pytest

from imagenet_synth.core import accelerators
from imagenet_synth.core.accelerators import ACCELERATORS, accelerator, has_gpu, peak_teraflops
from imagenet_synth.core.errors import InputError


def test_accelerators_have_plausible_figures_and_names():
  for name, device in ACCELERATORS.items():
    assert accelerator(name) == device
    assert 50 < device.teraflops < 3000 and 16 <= device.gigabytes <= 200
  with pytest.raises(InputError, match="--accelerator is 'v7'; known: v4, v5e"):
    accelerator('v7')


def test_the_peak_of_a_device_is_known_by_what_jax_calls_it():
  assert (peak_teraflops('TPU v5 lite'), peak_teraflops('TPU v5')) == (197, 459)
  assert peak_teraflops('NVIDIA A100-SXM4-40GB') == ACCELERATORS['a100'].teraflops
  # slower than the one on SXM
  assert peak_teraflops('NVIDIA H100 PCIe') is None and peak_teraflops('cpu') is None


@pytest.mark.parametrize(
  'environment, plugin, devices, expected',
  [
    ({}, True, ['/dev/nvidia0'], True),
    ({'JAX_PLATFORMS': 'cuda,cpu'}, True, ['/dev/nvidia0'], True),
    ({'JAX_PLATFORMS': 'cpu'}, True, ['/dev/nvidia0'], False),
    ({'CUDA_VISIBLE_DEVICES': ''}, True, ['/dev/nvidia0'], False),
    ({}, False, ['/dev/nvidia0'], False),
    ({}, True, [], False),
  ],
)
def test_a_gpu_is_there_if_jax_can_use_it(monkeypatch, environment, plugin, devices, expected):
  for name in ('JAX_PLATFORMS', 'CUDA_VISIBLE_DEVICES'):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(accelerators.importlib.util, 'find_spec', lambda name: plugin or None)
  monkeypatch.setattr(accelerators.glob, 'glob', lambda pattern: devices)
  assert has_gpu() == expected


def test_no_gpu_is_found_where_jax_finds_none():
  assert has_gpu() == any(device.platform == 'gpu' for device in jax.devices())
