import pytest

from imagenet_synth.core.accelerators import ACCELERATORS, accelerator, peak_teraflops
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
