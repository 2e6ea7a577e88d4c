"""Images per second of the input pipeline, beside tf.data and PyTorch's loader, without a network.

    pip install -r benchmarks/requirements.txt && python -m benchmarks input_pipeline

Photos are written as JPEGs of 500x375, the usual size of ImageNet's: parts of the two that come with
scikit-learn. Random resized crops of 224x224 are cut out of them, by one worker and by two; tf.data and
PyTorch's loader mirror them, too, which devices do here. The rate of CPU time is that of all processes
together, and says more on a busy machine. Then the recipes of configs/recipes.py, here alone.
"""

import importlib.util
import json
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.harness import Row
from configs.recipes import RECIPES
from imagenet_synth.core.config import build
from imagenet_synth.data.batches import BatchMaker, Images
from imagenet_synth.data.image_folder import FolderSource
from imagenet_synth.data.workers import made_by_workers
from imagenet_synth.train.recipe import Recipe

_WIDTH, _HEIGHT, _QUALITY = 500, 375, 95
_SIZE, _BATCH_SIZE = 224, 128
_ROUNDS, _WARM_UP, _NUM_BATCHES = 5, 6, 16
_NUM_FILES = 200
DEVICES = (1,)
"""No network runs."""


def rows() -> Iterator[Row]:
  """Yields what is measured."""
  with tempfile.TemporaryDirectory() as folder:
    _write_files(pathlib.Path(folder) / 'train/photo')
    kinds = {'imagenet_synth': _ours, 'tf.data': _tf_data}
    if importlib.util.find_spec('torchvision'):
      kinds['PyTorch'] = _pytorch
    for num_workers in (1, 2):
      wall: dict[str, list[float]] = {name: [] for name in kinds}
      cpu: dict[str, list[float]] = {name: [] for name in kinds}
      for _ in range(_ROUNDS):
        for name, kind in kinds.items():
          rates = _alone(kind, folder, num_workers)
          wall[name].append(rates[0])
          cpu[name].append(rates[1])
      what = f'Input: crops of 224 from JPEGs of 500x375, {num_workers} worker{"s" * (num_workers > 1)}'
      yield Row(what, 'images/s', wall)
      yield Row(f'{what}, CPU time', 'images/s', cpu)
    for name, recipe in RECIPES.items():
      rates = [_alone(_ours, folder, 2, recipe)[0] for _ in range(2)]
      yield Row(f'Input of recipe `{name}`, 2 workers', 'images/s', {'imagenet_synth': rates})


def _write_files(folder: pathlib.Path) -> None:
  """Writes parts of two photos at one size, as FOLDER/*.jpg."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  photos = [Image.fromarray(photo) for photo in load_sample_images().images]
  for number in range(_NUM_FILES):
    photo = photos[number % len(photos)]
    width = int(rng.integers(_WIDTH, photo.height * 4 // 3))
    height = width * 3 // 4
    left, top = (int(rng.integers(0, room + 1)) for room in (photo.width - width, photo.height - height))
    part = photo.crop((left, top, left + width, top + height))
    picture = part.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    picture.save(folder / f'{number:05d}.jpg', quality=_QUALITY)


def _ours(folder, num_workers, recipe=RECIPES['cas']):
  augment = build(Recipe, json.loads(json.dumps(recipe)), 'recipe').augmentation(_SIZE)
  source = FolderSource(pathlib.Path(folder), 'train', pathlib.Path(folder) / 'cache')
  images = Images(source, _SIZE, lambda example: example['label'], cache=False)
  make = BatchMaker(images, 'label', 0, _BATCH_SIZE, augment, 1, augment.crop)
  return made_by_workers(make, range(10**6), np.arange(_BATCH_SIZE), num_workers)


def _tf_data(folder, num_workers):
  import tensorflow as tf

  def cut(path):
    data = tf.io.read_file(path)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
      tf.image.extract_jpeg_shape(data),
      tf.zeros([1, 0, 4]),
      aspect_ratio_range=(3 / 4, 4 / 3),
      area_range=(0.08, 1.0),
      use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], 0)
    part = tf.io.decode_and_crop_jpeg(data, window, channels=3)
    part = tf.cast(tf.image.resize(part, (_SIZE, _SIZE), antialias=True) + 0.5, tf.uint8)
    return tf.image.random_flip_left_right(part), 0

  options = tf.data.Options()
  options.threading.private_threadpool_size = num_workers
  files = tf.data.Dataset.list_files(f'{folder}/train/*/*.jpg').cache().repeat().shuffle(1000)
  data = files.map(cut, num_parallel_calls=num_workers).batch(_BATCH_SIZE).prefetch(2).with_options(options)
  return data.as_numpy_iterator()


def _pytorch(folder, num_workers):
  import torch
  from torchvision import datasets, transforms

  steps = [transforms.RandomResizedCrop(_SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
  data = datasets.ImageFolder(f'{folder}/train', transforms.Compose(steps))
  sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=10**8)
  return iter(torch.utils.data.DataLoader(data, _BATCH_SIZE, sampler=sampler, num_workers=num_workers))


def _cpu_seconds():
  """Returns the CPU time of this process and of those that it has started."""
  fields = [
    pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
  ]
  return sum(int(of[11]) + int(of[12]) for of in fields) / os.sysconf('SC_CLK_TCK')


def _rates(kind, *args):
  """Returns images a second, and images a second of CPU time."""
  batches = kind(*args)
  for _ in range(_WARM_UP):
    next(batches)
  start, used = time.perf_counter(), _cpu_seconds()
  for _ in range(_NUM_BATCHES):
    next(batches)
  seconds, used = time.perf_counter() - start, _cpu_seconds() - used
  if hasattr(batches, 'close'):
    batches.close()
  return _NUM_BATCHES * _BATCH_SIZE / seconds, _NUM_BATCHES * _BATCH_SIZE / used


def _alone(kind, *args):
  """Returns what `_rates` does, in a process of its own: forks of one kind collide with others' threads."""
  with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
    return pool.submit(_rates, kind, *args).result()
