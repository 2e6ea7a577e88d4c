"""Features per second of FID's Inception-v3: ours beside torch-fidelity's, on the CPU of this machine.

    pip install torch torch-fidelity && python -m benchmarks.extractor

Both take uint8 images of 64x64 pixels, resize them, and give the 2,048 features and the logits. They
alternate, so that what else the machine does hits both; the weights are random, which changes no time.
What is printed: images/s of each, and the ratio of the medians.
"""

import os
import statistics
import tempfile
import time

import jax
import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from imagenet_synth.core.devices import map_rows, over_devices
from imagenet_synth.models.inception import InceptionV3

_SIZE, _BATCH_SIZE, _REPEATS = 64, 64, 7


def _ours():
  jax.config.update('jax_num_cpu_devices', min(2, os.cpu_count()))
  model = InceptionV3()
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, _SIZE, _SIZE, 3), np.uint8))

  def forward(variables, images):
    outputs = model.apply(variables, images)
    return outputs['2048'], outputs['logits_unbiased']

  mapped = over_devices(forward)
  return lambda images: map_rows(mapped, variables, images, _BATCH_SIZE)


def _theirs():
  class RandomWeights(FeatureExtractorInceptionV3):
    def load_state_dict(self, state):
      """Keeps the initial weights: nothing is downloaded."""

  with tempfile.NamedTemporaryFile(suffix='.pth') as empty:
    torch.save({}, empty.name)
    model = RandomWeights('inception-v3-compat', ['2048', 'logits_unbiased'], empty.name)

  @torch.no_grad()
  def extract(images):
    return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))

  return extract


def _images_per_second(extract, images):
  start = time.perf_counter()
  extract(images)
  return len(images) / (time.perf_counter() - start)


def main():
  images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, _SIZE, _SIZE, 3), np.uint8)
  extractors = {'imagenet_synth': _ours(), 'torch-fidelity': _theirs()}
  for extract in extractors.values():
    extract(images)
  rates = {name: [] for name in extractors}
  for _ in range(_REPEATS):
    for name, extract in extractors.items():
      rates[name].append(_images_per_second(extract, images))
  for name, values in rates.items():
    print(f'{name}: {statistics.median(values):.2f} images/s ({min(values):.2f} to {max(values):.2f})')
  ours, theirs = (statistics.median(values) for values in rates.values())
  print(f'ratio: {ours / theirs:.2f}')


if __name__ == '__main__':
  main()
