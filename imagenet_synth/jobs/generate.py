"""The generate job: class-balanced images are drawn and written, as TFRecord shards of each size.

Shard s is a pure function of (config, weights, s). It is written to a temporary name, synced and
renamed, so it exists whole or not at all; running again makes what is missing. Several workers can share
the shards; the one that finds all of them there ends the job.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from imagenet_synth.cascade import Cascade
from imagenet_synth.core import images
from imagenet_synth.core.config import Count, Distinct, Invalid, NotEmpty, Range, Seed
from imagenet_synth.core.files import write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import is_first, wait_for_all
from imagenet_synth.core.progress import progress
from imagenet_synth.data import dataset_card, licenses, tfds_metadata
from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.data.kept_images import KeptImages, set_aside
from imagenet_synth.data.records import Record, shard_hash, write_shard
from imagenet_synth.data.shard_index import load_indices
from imagenet_synth.data.shard_plan import Shard, plan_shards
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageUse, check_cascade, load_cascade
from imagenet_synth.inputs.text import EmbeddedText, Text

# of the data set's card
_FILES = """\
- Files: `SIZE/train-*.tfrecord`, their SHA-256 beside them (`sha256sum --check *.sha256`) and in
  `manifest.json`. The `*.index` beside a shard says where its records are, and can be made anew.
- TFDS reads a size as `tfds.builder_from_directory('SIZE').as_dataset(split='train')`."""


@dataclasses.dataclass(frozen=True)
class Config:
  """What is drawn, how many of each class (either `per_class` or `times_real`), and in what form."""

  # more images, or more classes, can be asked for later: those that are there are kept
  grows: ClassVar[tuple[str, ...]] = ('per_class', 'times_real')

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
  license: str = licenses.NOT_STATED
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

  def image_channels(self, jobs: KnownJobs) -> int:
    """Returns 1 for grey images, 3 for RGB."""
    return self.stages[0].weights.stage(jobs).channels

  def num_images(self, jobs: KnownJobs) -> int | None:
    """Returns how many images of each size are made; None if only the data set tells it."""
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if self.times_real is not None:
      return None if contents.num_examples is None else self.times_real * contents.num_examples
    assert self.per_class is not None
    return None if contents.class_names is None else self.per_class * len(contents.class_names)

  def class_names(self, jobs: KnownJobs) -> tuple[str, ...] | None:
    """Returns the classes that are drawn; None if only the data set tells them."""
    return self.dataset.contents(jobs.workdir, 'dataset').class_names


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Makes this worker's missing shards; when all are there, writes the manifest and returns most of it."""
  source = config.dataset.open(folder, uses='classes' if config.per_class is not None else 'images')
  text = config.text.open(folder).of_classes(source.class_names, str(config.dataset))
  counts = _class_counts(config, source)
  stages, origins = load_cascade(config.stages, folder)
  origins = [origin | {'encoder': text.encoder} for origin in origins]
  sizes = list(config.keep or (trained.stage.size for trained in stages))
  shards = plan_shards(folder.path, counts, sizes, config.shard_size)
  plan = {
    'seed': config.seed,
    'stages': origins,
    'sizes': sizes,
    'class_names': list(text.class_names),
    'prompts': list(text.prompts),
    'class_counts': counts,
    'num_images': sum(counts),
    'shard_size': config.shard_size,
    'image_format': config.image_format,
    'quality': config.quality,
    'plan': 'the images of each class are spread evenly, so that a prefix keeps the ratio of the classes',
  }
  if is_first():
    set_aside(folder.path, plan)
  wait_for_all(f'{folder.name}: plan')
  kept = KeptImages(folder.path)
  cascade = Cascade(stages, text.states, config.seed, config.batch_size)
  _make_missing(config, folder, cascade, text, origins, shards, kept)
  wait_for_all(folder.name)
  folder.worker.require_all(folder.name, shards, lambda shard: shard.is_there, 'shards')
  hashes = {
    str(size): {shard.files[size].name: shard_hash(shard.files[size]) for shard in shards} for size in sizes
  }
  manifest = {'origin': folder.origin, 'license': config.license, **plan, 'shards': hashes}
  if is_first():
    for size in sizes:
      # those that a kill has left out are made: whoever reads the data set may not be able to write there
      for _ in load_indices([shard.files[size] for shard in shards]):
        pass
      lengths = [len(shard) for shard in shards]
      channels = stages[0].stage.channels
      tfds_metadata.write(folder.path / str(size), lengths, channels, text.class_names)
    write_json(folder.path / 'manifest.json', manifest)
    about = dataset_card.About(f'Synthetic images: {folder.name}', licenses.named(config.license))
    dataset_card.write(folder.path, shards[0].files[max(sizes)], about, manifest, _FILES)
    kept.delete()
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
  cascade: Cascade,
  text: EmbeddedText,
  origins: list[dict[str, Any]],
  shards: Sequence[Shard],
  kept: KeptImages,
) -> None:
  """Makes this worker's shards, but those that are there; the next is sampled while one is written."""
  mine = folder.worker.part(shards)
  written: Future[None] | None = None

  def fields(label: int, index: int) -> dict[str, Any]:
    """Returns a record but its image."""
    class_name, wnid = class_name_and_wnid(text.class_names[label])
    return {
      'label': label,
      'class_name': class_name,
      'wnid': wnid,
      'index': index,
      'seed': config.seed,
      'prompt': text.prompts[label],
      'stages': origins,
    }

  with progress(sum(map(len, mine)), folder.name) as bar, ThreadPoolExecutor(1) as writer:
    for shard in mine:
      if shard.is_there:
        bar.update(len(shard))
        continue
      wanted = [fields(*place) for place in zip(shard.labels.tolist(), shard.indices.tolist())]
      found = [kept.find(of, shard.files) for of in wanted]
      rows = np.array([row for row, records in enumerate(found) if records is None], int)
      bar.update(len(shard) - len(rows))
      drawn = {}
      if len(rows):
        sampled = cascade.sample(shard.labels[rows], shard.indices[rows], on_batch=bar.update)
        drawn = {of.stage.size: pictures for of, pictures in zip(cascade.stages, sampled)}
      if written:
        written.result()
      written = writer.submit(_write, config, shard, wanted, found, rows, drawn)
    if written:
      written.result()


def _write(
  config: Config,
  shard: Shard,
  wanted: Sequence[dict[str, Any]],
  found: Sequence[dict[int, Record] | None],
  rows: np.ndarray,
  drawn: dict[int, np.ndarray],
) -> None:
  """Writes the shard of each size: what was found, and what was drawn for the other `rows`."""
  for size, path in shard.files.items():
    records = [of[size] if of else None for of in found]
    if len(rows):
      for row, picture in zip(rows.tolist(), np.asarray(images.to_uint8(drawn[size]))):
        records[row] = Record(picture, **wanted[row])
    write_shard(path, [of for of in records if of], config.image_format, config.quality, keep_hash=True)
