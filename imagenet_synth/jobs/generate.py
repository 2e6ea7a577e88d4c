"""generate: class-balanced images -> TFRecord shards of each size + manifest.json.

Shard s is a pure function of (config, weights, s). It is written to a temporary name, synced and
renamed, so it exists whole or not at all; running again makes what is missing.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from imagenet_synth import cascade
from imagenet_synth.core import images
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.records import Record, shard_name, write_shard
from imagenet_synth.jobs.inputs import DatasetConfig, StageUse, load_cascade, load_text, open_dataset
from imagenet_synth.jobs.plan import class_plan


@dataclasses.dataclass(frozen=True)
class Config:
  """stages: the cascade. text: the embed job with a prompt for each class of `dataset`. per_class:
  images of each class. shard_size: images in a shard. keep: sizes that are written; all if not given.
  """
  stages: tuple[StageUse, ...]
  text: str
  dataset: DatasetConfig
  per_class: int
  shard_size: int
  batch_size: int
  keep: tuple[int, ...] | None = None
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  text = load_text(config.text, folder)
  names = open_dataset(config.dataset, folder).class_names
  stages, origins = load_cascade(config.stages, folder)
  made = [trained.stage.size for trained in stages]
  sizes = made if config.keep is None else list(config.keep)
  unknown = [size for size in sizes if size not in made]
  if unknown:
    raise InputError(f'config: {folder.name}.keep has size {unknown[0]}, the cascade makes {made}')

  labels, indices = class_plan(len(names), config.per_class)
  num_shards = -(-len(labels) // config.shard_size)
  paths = [{size: folder.path / str(size) / shard_name(shard, num_shards) for size in sizes}
           for shard in range(num_shards)]
  with progress(len(labels), folder.name) as bar:
    for shard, files in enumerate(paths):
      rows = slice(shard * config.shard_size, (shard + 1) * config.shard_size)
      if all(path.exists() for path in files.values()):
        bar.update(len(labels[rows]))
        continue
      drawn = cascade.sample(stages, text.states, config.seed, labels[rows], indices[rows],
                             config.batch_size, on_batch=bar.update)
      for size, pictures in zip(made, drawn):
        if size in files:
          write_shard(files[size], [
              Record(picture, int(label), names[label], int(index), config.seed)
              for picture, label, index in zip(np.asarray(images.to_uint8(pictures)),
                                               labels[rows], indices[rows])])
  manifest = {
      'origin': folder.origin, 'seed': config.seed, 'stages': origins, 'sizes': sizes,
      'class_names': list(names), 'prompts': list(text.prompts), 'per_class': config.per_class,
      'num_images': len(labels), 'plan': 'image i has class i mod num_classes',
      'shards': {str(size): {files[size].name: hashlib.sha256(files[size].read_bytes()).hexdigest()
                             for files in paths} for size in sizes}}
  write_json(folder.path / 'manifest.json', manifest)
  return {key: manifest[key] for key in ('stages', 'sizes', 'per_class', 'num_images', 'shards')}
