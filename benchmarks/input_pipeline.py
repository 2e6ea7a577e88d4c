"""Images per second of the input pipeline, from shards at the size of ImageNet's, without a network.

    python -m benchmarks.input_pipeline data/mine

The photos of a folder (FOLDER/CLASS/*.jpg) are written as a shard of 256x256 PNG, as `generate` writes them,
and read as the recipes of configs/recipes.py do: decoded, cut to 224x224 and augmented, by all cores. What is
printed for each recipe is what a training step must not be faster than.
"""

import functools
import json
import pathlib
import sys
import tempfile
import time

from configs.recipes import RECIPES
from imagenet_synth.core.config import build
from imagenet_synth.data.batches import Images, batches, resize
from imagenet_synth.data.image_folder import FolderSource
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.train.recipe import Recipe, augment

_STORED, _SIZE, _BATCH_SIZE, _NUM_BATCHES = 256, 224, 64, 12


def _shard(directory, path):
  source = FolderSource(directory.parent, directory.name, path.parent)
  write_shard(
    path,
    (
      Record(
        resize(source[i]['image'], _STORED),
        source[i]['label'],
        index=i,
        seed=0,
        class_name='',
        prompt='',
        stages=(),
      )
      for i in range(len(source))
    ),
  )


def main(directory):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'train-00000-of-00001.tfrecord'
    _shard(pathlib.Path(directory).resolve(), path)
    images = Images(ShardSource([path]), _STORED, lambda example: example['label'], cache=False)
    for name, section in RECIPES.items():
      recipe = build(Recipe, json.loads(json.dumps(section)), name)
      stream = batches(
        images,
        'label',
        0,
        _BATCH_SIZE,
        0,
        _NUM_BATCHES,
        augment=functools.partial(augment, recipe=recipe, size=_SIZE),
      )
      next(stream)
      start = time.perf_counter()
      num = sum(len(batch['label']) for batch in stream)
      print(f'{name}: {num / (time.perf_counter() - start):.0f} images/s', flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
