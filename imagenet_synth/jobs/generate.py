"""The generate job: class-balanced images are drawn and written, as TFRecord shards of each size.

Shard s is a pure function of (config, weights, s). It is written to a temporary name, synced and
renamed, so it exists whole or not at all; running again makes what is missing. Several workers can share
the shards; the one that finds all of them there ends the job.
"""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np

from imagenet_synth import cascade
from imagenet_synth.cascade import TextStates, TrainedStage
from imagenet_synth.core import images
from imagenet_synth.core.config import Count, Distinct, Invalid, NotEmpty, Range, Seed
from imagenet_synth.core.files import write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import is_first, wait_for_all
from imagenet_synth.core.progress import progress
from imagenet_synth.data import dataset_card, tfds_metadata
from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.data.records import Record, shard_hash, write_shard
from imagenet_synth.data.shard_plan import Shard, plan_shards
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageUse, check_cascade, load_cascade
from imagenet_synth.inputs.text import Text

Describe = Callable[[int], dict[str, Any]]
"""A function of a label that returns those fields of a `Record` that all images of the class share."""


@dataclasses.dataclass(frozen=True)
class Config:
  """What is drawn, how many of each class (either `per_class` or `times_real`), and in what form."""

  # the cascade, base first
  stages: Annotated[tuple[StageUse, ...], NotEmpty()]
  # the embed job with a prompt for each class of `dataset`
  text: Text
  # the real images whose classes are drawn
  dataset: DatasetConfig
  # images in a shard
  shard_size: Count
  # images sampled at a time, over all devices of a host
  batch_size: Count
  # the number of images of each class
  per_class: Count | None = None
  # the number of images of each class as a multiple of what `dataset` has of it
  times_real: Count | None = None
  # the sizes (of stages) that are written; those of all stages if not given
  keep: Annotated[tuple[Count, ...], NotEmpty(), Distinct()] | None = None
  # the format of the image files in the records
  image_format: Literal['png', 'jpeg'] = 'png'
  # the quality of JPEG files
  quality: Annotated[int, Range(low=1, high=95)] = 95
  # the license that the data set's card states
  license: str = 'not stated'
  # the seed of the images: each has a key of its own, made of this, the stage, its class and its index
  seed: Seed = 0

  def validate(self) -> None:
    """Raises `Invalid` unless exactly one of `per_class` and `times_real` is given."""
    if (self.per_class is None) == (self.times_real is None):
      raise Invalid(
        'per_class', f'is {self.per_class} and times_real is {self.times_real}; give one of the two'
      )

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stages, the text, the data and the sizes don't fit each other."""
    made = [stage.size for stage in check_cascade(self.stages, self.text, jobs, 'stages')]
    for i, size in enumerate(self.keep or ()):
      if size not in made:
        raise Invalid(f'keep[{i}]', f'is {size}, the cascade makes {", ".join(map(str, made))}')
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if contents.class_names == ():
      raise Invalid('dataset.name', f'is {self.dataset.name!r}, which has no classes')
    self.text.require_classes(contents.class_names, jobs, 'text')

  def image_sizes(self, jobs: KnownJobs) -> tuple[int, ...]:
    """Returns the sizes of the images that are written."""
    return self.keep or tuple(use.weights.stage(jobs).size for use in self.stages)

  def num_images(self, jobs: KnownJobs) -> int | None:
    """Returns how many images of each size are made; None if only the data set tells it."""
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if self.times_real is not None:
      return None if contents.num_examples is None else self.times_real * contents.num_examples
    assert self.per_class is not None
    return None if contents.class_names is None else self.per_class * len(contents.class_names)


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Makes this worker's missing shards, writes the manifest, and returns its main parts.

  Raises:
    Unfinished: the other workers have not made their shards yet.
  """
  text = config.text.open(folder)
  source = config.dataset.open(folder)
  names, counts = source.class_names, _class_counts(config, source)
  stages, origins = load_cascade(config.stages, folder)
  sizes = list(config.keep or (trained.stage.size for trained in stages))
  shards = plan_shards(folder.path, counts, sizes, config.shard_size)

  def describe(label: int) -> dict[str, Any]:
    class_name, wnid = class_name_and_wnid(names[label])
    return {'class_name': class_name, 'wnid': wnid, 'prompt': text.prompts[label], 'stages': origins}

  _make_missing(config, folder, stages, text.states, shards, describe)
  wait_for_all(folder.name)
  folder.worker.require_all(folder.name, shards, lambda shard: shard.is_there, 'shards')
  manifest = {
    'origin': folder.origin,
    'seed': config.seed,
    'stages': origins,
    'sizes': sizes,
    'class_names': list(names),
    'prompts': list(text.prompts),
    'class_counts': counts,
    'num_images': sum(counts),
    'shard_size': config.shard_size,
    'plan': 'the images of each class are spread evenly, so that a prefix keeps the ratio of the classes',
    'shards': {
      str(size): {shard.files[size].name: shard_hash(shard.files[size]) for shard in shards} for size in sizes
    },
  }
  if is_first():
    for size in sizes:
      lengths = [len(shard) for shard in shards]
      tfds_metadata.write(folder.path / str(size), lengths, stages[0].stage.channels, names)
    write_json(folder.path / 'manifest.json', manifest)
    dataset_card.write(folder.path, manifest, config.license)
  return {key: manifest[key] for key in ('stages', 'sizes', 'class_counts', 'num_images', 'shards')}


def _class_counts(config: Config, source: Source) -> list[int]:
  """Returns how many images of each class are made."""
  if config.per_class is not None:
    return [config.per_class] * len(source.class_names)
  assert config.times_real is not None
  return (config.times_real * source.class_counts()).tolist()


def _make_missing(
  config: Config,
  folder: JobFolder,
  stages: Sequence[TrainedStage],
  text: TextStates,
  shards: Sequence[Shard],
  describe: Describe,
) -> None:
  """Makes those of this worker's shards that are missing; one is written while the next one is sampled."""
  mine = folder.worker.part(shards)
  written: Future[None] | None = None
  with progress(sum(map(len, mine)), folder.name) as bar, ThreadPoolExecutor(1) as writer:
    for shard in mine:
      if shard.is_there:
        bar.update(len(shard))
        continue
      drawn = cascade.sample(
        stages, text, config.seed, shard.labels, shard.indices, config.batch_size, on_batch=bar.update
      )
      of_size = {trained.stage.size: pictures for trained, pictures in zip(stages, drawn)}
      if written:
        written.result()
      written = writer.submit(_write, config, shard, of_size, describe)
    if written:
      written.result()


def _write(config: Config, shard: Shard, drawn: dict[int, np.ndarray], describe: Describe) -> None:
  """Writes a shard's files from the images that were drawn, float32 [n, S, S, C] in [-1, 1] by size."""
  for size, path in shard.files.items():
    pictures = np.asarray(images.to_uint8(drawn[size]))
    records = [
      Record(picture, int(label), index=int(index), seed=config.seed, **describe(label))
      for picture, label, index in zip(pictures, shard.labels, shard.indices)
    ]
    write_shard(path, records, config.image_format, config.quality, keep_hash=True)
