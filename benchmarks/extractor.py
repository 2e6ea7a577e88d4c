"""Features per second of FID's Inception-v3: ours beside torch-fidelity's, on the CPU of this machine.

    pip install -r benchmarks/requirements.txt && python -m benchmarks extractor

Both take uint8 images of 64x64 pixels, resize them, and give the 2,048 features and the logits; the weights
are random, which changes no time.
"""

import tempfile
from collections.abc import Callable, Iterator

import jax
import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmarks.harness import Row, alternate
from imagenet_synth.core.devices import map_rows, over_devices
from imagenet_synth.models.inception import InceptionV3

_SIZE, _BATCH_SIZE, _REPEATS = 64, 64, 7


DEVICES = (1, 2)
"""The numbers of virtual devices that ours is tried with."""


def rows() -> Iterator[Row]:
  """Yields what is measured."""
  images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, _SIZE, _SIZE, 3), np.uint8)
  runs = {name: make(images) for name, make in (('imagenet_synth', _ours), ('torch-fidelity', _theirs))}
  subject = f'Inception-v3, {_SIZE}x{_SIZE}, batch {_BATCH_SIZE}: features and logits'
  yield Row(subject, 'images/s', alternate(runs, _BATCH_SIZE, _REPEATS))


def _ours(images: np.ndarray) -> Callable[[], object]:
  model = InceptionV3()
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, _SIZE, _SIZE, 3), np.uint8))

  def forward(variables, images):
    outputs = model.apply(variables, images)
    return outputs['2048'], outputs['logits_unbiased']

  mapped = over_devices(forward)
  return lambda: map_rows(mapped, variables, images, _BATCH_SIZE // jax.local_device_count())


def _theirs(images: np.ndarray) -> Callable[[], object]:
  class RandomWeights(FeatureExtractorInceptionV3):
    def load_state_dict(self, state):
      """Keeps the initial weights: nothing is downloaded."""

  with tempfile.NamedTemporaryFile(suffix='.pth') as empty:
    torch.save({}, empty.name)
    model = RandomWeights('inception-v3-compat', ['2048', 'logits_unbiased'], empty.name)

  @torch.no_grad()
  def extract() -> object:
    return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))

  return extract
