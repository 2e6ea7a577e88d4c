"""generate: class-balanced images -> TFRecord shards of each size + manifest.json.

Shard s is a pure function of (config, weights, s). It is written to a temporary name, synced and
renamed, so it exists whole or not at all; running again makes what is missing. Several workers can share
the shards; the one that finds all of them there ends the job.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from imagenet_synth import cascade
from imagenet_synth.cascade import TrainedStage
from imagenet_synth.core import images
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_atomic, write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.processes import is_first, wait_for_all
from imagenet_synth.core.progress import progress
from imagenet_synth.core.worker import Unfinished
from imagenet_synth.data import tfds_metadata
from imagenet_synth.data.folder import FolderSource
from imagenet_synth.data.records import Record, shard_name, write_shard
from imagenet_synth.data.sources import Source
from imagenet_synth.jobs import card
from imagenet_synth.jobs.inputs import DatasetConfig, StageUse, load_cascade, load_text, open_dataset
from imagenet_synth.jobs.plan import class_plan
from imagenet_synth.prompts import class_name_and_wnid

Describe = Callable[[int], dict[str, Any]]
"""label -> those fields of a record that all images of a class share."""


@dataclasses.dataclass(frozen=True)
class Config:
  """stages: the cascade. text: the embed job with a prompt for each class of `dataset`. per_class:
  images of each class; or times_real: that many times as many as `dataset` has of it. shard_size:
  images in a shard. keep: sizes that are written; all if not given.
  image_format, quality: of the files in the records; quality is JPEG's, 1 to 95. license: what the data
  set's card says of it.
  """

  stages: tuple[StageUse, ...]
  text: str
  dataset: DatasetConfig
  shard_size: int
  batch_size: int
  per_class: int | None = None
  times_real: int | None = None
  keep: tuple[int, ...] | None = None
  image_format: Literal['png', 'jpeg'] = 'png'
  quality: int = 95
  license: str = 'not stated'
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  text = load_text(config.text, folder)
  source = open_dataset(config.dataset, folder)
  names, counts = source.class_names, _class_counts(config, source, folder)
  stages, origins = load_cascade(config.stages, folder)
  made = [trained.stage.size for trained in stages]
  sizes = made if config.keep is None else list(config.keep)
  unknown = [size for size in sizes if size not in made]
  if unknown:
    raise InputError(f'config: {folder.name}.keep has size {unknown[0]}, the cascade makes {made}')

  labels, indices = class_plan(counts)
  paths = shard_paths(folder.path, sizes, len(labels), config.shard_size)

  def describe(label):
    class_name, wnid = class_name_and_wnid(names[label])
    return {'class_name': class_name, 'wnid': wnid, 'prompt': text.prompts[label], 'stages': origins}

  _make_missing(config, folder, stages, text.states, paths, labels, indices, describe)
  wait_for_all(folder.name)
  missing = [files for files in paths if not _is_there(files)]
  if missing:
    raise Unfinished(
      f'{folder.name}: worker {folder.worker.index} of {folder.worker.count} has made its '
      f'part; {len(missing)} of {len(paths)} shards are left to the others'
    )
  manifest = {
    'origin': folder.origin,
    'seed': config.seed,
    'stages': origins,
    'sizes': sizes,
    'class_names': list(names),
    'prompts': list(text.prompts),
    'class_counts': counts,
    'num_images': len(labels),
    'shard_size': config.shard_size,
    'plan': 'the images of each class are spread evenly, so that a prefix keeps the ratio of the classes',
    'shards': {str(size): {files[size].name: _hash(files[size]) for files in paths} for size in sizes},
  }
  if is_first():
    lengths = [
      len(labels[start : start + config.shard_size]) for start in range(0, len(labels), config.shard_size)
    ]
    for size in sizes:
      tfds_metadata.write(folder.path / str(size), lengths, stages[0].stage.channels, names)
    write_json(folder.path / 'manifest.json', manifest)
    card.write(folder.path, manifest, config.license)
  return {key: manifest[key] for key in ('stages', 'sizes', 'class_counts', 'num_images', 'shards')}


def _class_counts(config: Config, source: Source | FolderSource, folder: Folder) -> list[int]:
  if (config.per_class is None) == (config.times_real is None):
    raise InputError(f'config: {folder.name} needs one of per_class and times_real')
  if config.times_real is None:
    return [config.per_class] * len(source.class_names)
  return (config.times_real * source.class_counts()).tolist()


def shard_paths(
  path: pathlib.Path, sizes: list[int], num_images: int, shard_size: int
) -> list[dict[int, pathlib.Path]]:
  """For each shard, its file of each size."""
  num_shards = -(-num_images // shard_size)
  return [
    {size: path / str(size) / shard_name(shard, num_shards) for size in sizes} for shard in range(num_shards)
  ]


def hash_path(shard: pathlib.Path) -> pathlib.Path:
  """Where a shard's hash is kept, in the form that `sha256sum --check` reads."""
  return shard.with_name(f'{shard.name}.sha256')


def _make_missing(
  config: Config,
  folder: Folder,
  stages: list[TrainedStage],
  text: cascade.TextStates,
  paths: list[dict[int, pathlib.Path]],
  labels: np.ndarray,
  indices: np.ndarray,
  describe: Describe,
) -> None:
  """This worker's shards, but those that are there; the next is sampled while one is written."""
  mine = folder.worker.part(range(len(paths)))
  rows_of = lambda shard: slice(shard * config.shard_size, (shard + 1) * config.shard_size)
  num_images = sum(len(labels[rows_of(shard)]) for shard in mine)
  written: Future[None] | None = None
  with progress(num_images, folder.name) as bar, ThreadPoolExecutor(1) as writer:
    for shard in mine:
      rows, files = rows_of(shard), paths[shard]
      if _is_there(files):
        bar.update(len(labels[rows]))
        continue
      drawn = cascade.sample(
        stages, text, config.seed, labels[rows], indices[rows], config.batch_size, on_batch=bar.update
      )
      drawn = {trained.stage.size: pictures for trained, pictures in zip(stages, drawn)}
      if written:
        written.result()
      written = writer.submit(_write, config, files, drawn, labels[rows], indices[rows], describe)
    if written:
      written.result()


def _write(
  config: Config,
  files: dict[int, pathlib.Path],
  drawn: dict[int, np.ndarray],
  labels: np.ndarray,
  indices: np.ndarray,
  describe: Describe,
) -> None:
  for size, path in files.items():
    pictures = np.asarray(images.to_uint8(drawn[size]))
    records = [
      Record(picture, int(label), index=int(index), seed=config.seed, **describe(label))
      for picture, label, index in zip(pictures, labels, indices)
    ]
    digest = write_shard(path, records, config.image_format, config.quality)
    write_atomic(hash_path(path), f'{digest}  {path.name}\n')


def _is_there(files: dict[int, pathlib.Path]) -> bool:
  return all(path.exists() for path in files.values())


def _hash(path: pathlib.Path) -> str:
  """As it was when the shard was written; computed where a kill came between the two."""
  if hash_path(path).exists():
    return hash_path(path).read_text().split()[0]
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  write_atomic(hash_path(path), f'{digest}  {path.name}\n')
  return digest
