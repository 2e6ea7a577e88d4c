"""A training step of ResNet-50 and ViT-S/16, ours beside timm's in PyTorch, on the CPU of this machine.

    pip install -r benchmarks/requirements.txt && python -m benchmarks classifier_step

Images of 64x64 pixels, batches of 32, float32, SGD with momentum; forward, backward and update.
"""

from collections.abc import Iterator

import jax
import numpy as np
import timm
import torch

from benchmarks.harness import Row, alternate
from imagenet_synth.core.devices import batch_sharding, make_mesh
from imagenet_synth.models.resnet import ResNet50
from imagenet_synth.models.vit import ViT_S16
from imagenet_synth.train.classifier import ClassifierObjective
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_SIZE, _BATCH_SIZE, _NUM_CLASSES, _REPEATS = 64, 32, 1000, 7
_MODELS = {
  'ResNet-50': (ResNet50, 'resnet50', {}),
  'ViT-S/16': (ViT_S16, 'vit_small_patch16_224', {'img_size': _SIZE}),
}


DEVICES = (1, 2)
"""The numbers of virtual devices that ours is tried with."""


def rows() -> Iterator[Row]:
  """Yields what is measured."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (_BATCH_SIZE, _SIZE, _SIZE, 3), np.uint8)
  labels = rng.integers(0, _NUM_CLASSES, _BATCH_SIZE).astype(np.int32)
  for name, (make, public, options) in _MODELS.items():
    runs = {'imagenet_synth': _ours(make, images, labels), 'timm': _theirs(public, options, images, labels)}
    subject = f'{name}, {_SIZE}x{_SIZE}, batch {_BATCH_SIZE}: training step'
    yield Row(subject, 'images/s', alternate(runs, _BATCH_SIZE, _REPEATS))


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
