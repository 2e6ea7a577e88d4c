"""Time of a training step of ResNet-50 and ViT-S/16, ours beside PyTorch's, on the CPU of this machine.

    pip install torch timm && python -m benchmarks.classifier_step

Images of 64x64 pixels, batches of 32, float32, SGD with momentum; forward, backward and update. Ours are on
one device, as with --cpu_devices=1, which is best for networks as large as these. The two alternate, so that
what else the machine does hits both. What is printed: images/s of each, and the ratio of the medians.
"""

import statistics
import time

import jax
import numpy as np
import timm
import torch

from imagenet_synth.core.devices import batch_sharding, make_mesh
from imagenet_synth.models.resnet import ResNet50
from imagenet_synth.models.vit import ViT_S16
from imagenet_synth.train.classifier import ClassifierObjective
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_SIZE, _BATCH_SIZE, _NUM_CLASSES, _REPEATS = 64, 32, 1000, 9
_MODELS = {
  'ResNet-50': (ResNet50, 'resnet50', {}),
  'ViT-S/16': (ViT_S16, 'vit_small_patch16_224', {'img_size': _SIZE}),
}


def _ours(make, images, labels):
  mesh = make_mesh()
  objective = ClassifierObjective(make(num_classes=_NUM_CLASSES), _SIZE, 3)
  trainer = make_trainer(objective, Optimizer('momentum', 0.01), 1000, 0.0, mesh)
  state = trainer.init(0)
  batch = jax.device_put({'image': images, 'label': labels}, batch_sharding(mesh))

  def step():
    nonlocal state
    state, metrics = trainer.step(state, batch, {})
    return float(metrics['loss'])

  return step


def _theirs(name, options, images, labels):
  model = timm.create_model(name, num_classes=_NUM_CLASSES, **options).train()
  optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
  x = torch.from_numpy(np.asarray(images / 127.5 - 1, np.float32).transpose(0, 3, 1, 2).copy())
  # the layout that PyTorch's convolutions are fastest in
  x, y = x.to(memory_format=torch.channels_last), torch.from_numpy(labels).long()
  model = model.to(memory_format=torch.channels_last)

  def step():
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  return step


def _images_per_second(step):
  start = time.perf_counter()
  step()
  return _BATCH_SIZE / (time.perf_counter() - start)


def main():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (_BATCH_SIZE, _SIZE, _SIZE, 3), np.uint8)
  labels = rng.integers(0, _NUM_CLASSES, _BATCH_SIZE).astype(np.int32)
  for name, (make, public, options) in _MODELS.items():
    steps = {
      'imagenet_synth': _ours(make, images, labels),
      'PyTorch': _theirs(public, options, images, labels),
    }
    rates = {who: [] for who in steps}
    for step in steps.values():
      step()
    for _ in range(_REPEATS):
      for who, step in steps.items():
        rates[who].append(_images_per_second(step))
    for who, values in rates.items():
      print(
        f'{name}, {who}: {statistics.median(values):.2f} images/s ({min(values):.2f} to {max(values):.2f})'
      )
    ours, theirs = (statistics.median(values) for values in rates.values())
    print(f'{name}: ratio {ours / theirs:.2f}', flush=True)


if __name__ == '__main__':
  main()
