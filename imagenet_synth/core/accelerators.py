"""Public figures of accelerators: by them costs are estimated, and what is reached is a share of them."""

import glob
import importlib.util
import os
from typing import NamedTuple

from imagenet_synth.core.errors import InputError


class Accelerator(NamedTuple):
  """A device, as its maker describes it."""

  # what people call it
  title: str
  # peak rate of matrix products of bfloat16 that are summed in float32, without sparsity, in 1e12
  # operations a second
  teraflops: float
  # memory in 1e9 bytes
  gigabytes: float
  # where the figures are from
  source: str


_TPU = 'cloud.google.com/tpu/docs/'
ACCELERATORS: dict[str, Accelerator] = {
  'v4': Accelerator('TPU v4', 275, 32, f'{_TPU}v4'),
  'v5e': Accelerator('TPU v5e', 197, 16, f'{_TPU}v5e'),
  'v5p': Accelerator('TPU v5p', 459, 95, f'{_TPU}v5p'),
  'v6e': Accelerator('TPU v6e', 918, 32, f'{_TPU}v6e'),
  'a100': Accelerator('A100 80 GB', 312, 80, "NVIDIA's data sheet of the A100"),
  'h100': Accelerator('H100 SXM 80 GB', 989, 80, "NVIDIA's data sheet of the H100"),
  'h200': Accelerator('H200 SXM 141 GB', 989, 141, "NVIDIA's data sheet of the H200"),
  'l4': Accelerator('L4', 121, 24, "NVIDIA's data sheet of the L4"),
  'rtx3090': Accelerator('RTX 3090', 71, 24, "NVIDIA's white paper of GA102, table 2"),
  'rtx4090': Accelerator('RTX 4090', 165, 24, "NVIDIA's white paper of AD102, table 2"),
}
"""Devices by the name that --accelerator takes."""

_OF_JAX = {
  'TPU v4': 'v4',
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
  'NVIDIA A100-SXM4-40GB': 'a100',
  'NVIDIA A100-SXM4-80GB': 'a100',
  'NVIDIA A100 80GB PCIe': 'a100',
  'NVIDIA H100 80GB HBM3': 'h100',
  'NVIDIA H200': 'h200',
  'NVIDIA L4': 'l4',
  'NVIDIA GeForce RTX 3090': 'rtx3090',
  'NVIDIA GeForce RTX 4090': 'rtx4090',
}

UTILISATION = 0.4
"""The share of the peak rate that is reached, if nothing else is said: what is usual for large networks."""

USABLE = 0.95
"""The share of the memory that programs can use: the rest is the runtime's."""


def accelerator(name: str) -> Accelerator:
  """Returns the accelerator of a name; raises InputError if there is none."""
  if name not in ACCELERATORS:
    raise InputError(f'--accelerator is {name!r}; known: {", ".join(ACCELERATORS)}')
  return ACCELERATORS[name]


def peak_teraflops(device_kind: str) -> float | None:
  """Returns the peak rate of a device by what JAX calls it: see `Accelerator`; None if it is not known."""
  return ACCELERATORS[_OF_JAX[device_kind]].teraflops if device_kind in _OF_JAX else None


def has_gpu() -> bool:
  """Returns whether JAX would find a GPU of NVIDIA; it is not started for this, as a config must not."""
  has_plugin = any(importlib.util.find_spec(f'jax_cuda{version}_plugin') for version in (12, 13))
  is_hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
  platforms = os.environ.get('JAX_PLATFORMS', '')
  is_asked_for = not platforms or 'cuda' in platforms or 'gpu' in platforms
  return has_plugin and is_asked_for and not is_hidden and bool(glob.glob('/dev/nvidia[0-9]*'))
