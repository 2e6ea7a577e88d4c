"""The generate job: class-balanced images are drawn and written, as TFRecord shards of each size.

Shard s is a pure function of (config, weights, s). It is written to a temporary name as its images come,
synced and renamed, so it exists whole or not at all; running again makes what is missing. The images of a
shard that takes long are kept in `partial/` by the clock until it is whole. Images are encoded and written
behind the sampling of the next ones, also of the next shard. Memory holds a few batches of images, whatever
the size of a shard, those that encoding and the disk are behind with, and those that are to be kept. Several
workers can share the shards; the one that finds all of them there ends the job.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.cascade.sampling import Cascade, Drawn
from imagenet_synth.core.config import Count, Distinct, Execution, Invalid, NotEmpty, Range, Seed
from imagenet_synth.core.files import delete_tree, json_hash
from imagenet_synth.core.handover import Handover
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.kept_rows import KeptRows, keeping_rows
from imagenet_synth.core.processes import first_before_others, is_first, wait_for_all
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data import licenses, sample_folder
from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.data.kept_images import KeptImages, set_aside
from imagenet_synth.data.records import Record, open_shard
from imagenet_synth.data.shard_plan import Shard, are_written, plan_shards
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageUse, check_cascade, load_cascade
from imagenet_synth.inputs.text import EmbeddedText, Text

# images of a shard that are drawn and not yet given to its encoders: 42 of 1024x1024
_MAX_WAITING_BYTES = 2**27


@dataclasses.dataclass(frozen=True)
class Config:
  """What is drawn, how many of each class (either `per_class` or `times_real`), and in what form."""

  # more images, or more classes, can be asked for later: those that are there are kept
  grows: ClassVar[tuple[str, ...]] = ('per_class', 'times_real')
  # the job whose images were made smaller: none, they are drawn here
  reduced_from: ClassVar[None] = None

  # the cascade, base first
  stages: Annotated[tuple[StageUse, ...], NotEmpty()]
  # the embed job with a prompt for each class of `dataset`
  text: Text
  # the real images whose classes are drawn
  dataset: DatasetConfig
  # images in a shard
  shard_size: Count
  # images that a stage samples at a time, over all devices of a host, unless it says it itself; if not given,
  # as many as are sure to fit into memory: see `cascade.sampling_memory.default_batch_size`
  batch_size: Annotated[Count | None, Execution()] = None
  # whether the weights of one stage alone are on the devices, where those of all don't fit: each stage
  # samples a whole shard before the next one begins, whose small images are in the host's memory meanwhile
  stage_by_stage: Annotated[bool, Execution()] = False
  # the number of images of each class
  per_class: Count | None = None
  # the number of images of each class as a multiple of what `dataset` has of it
  times_real: Count | None = None
  # the sizes (of stages) that are written; those of all stages if not given
  keep: Annotated[tuple[Count, ...], NotEmpty(), Distinct()] | None = None
  # the format of the image files in the records
  image_format: Literal['png', 'jpeg'] = 'png'
  # sizes whose images are JPEG files, where those of the others are PNG
  jpeg_sizes: Annotated[tuple[Count, ...], Distinct()] = ()
  # the quality of JPEG files
  quality: Annotated[int, Range(low=1, high=95)] = 95
  # the license that the data set's card states
  license: str = licenses.NOT_STATED
  # the seed of the images: each has a key of its own, made of this, the stage, its class and its index
  seed: Seed = 0

  def validate(self) -> None:
    """Raises `Invalid` unless exactly one of `per_class` and `times_real` is given, and one format a size."""
    if (self.per_class is None) == (self.times_real is None):
      raise Invalid(
        'per_class', f'is {self.per_class} and times_real is {self.times_real}; give one of the two'
      )
    if self.jpeg_sizes and self.image_format == 'jpeg':
      raise Invalid('jpeg_sizes', "is set, but image_format is 'jpeg' for all sizes; leave one out")

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stages, the text, the data and the sizes don't fit each other."""
    made = [stage.size for stage in check_cascade(self.stages, self.text, jobs, 'stages')]
    for i, size in enumerate(self.keep or ()):
      if size not in made:
        raise Invalid(f'keep[{i}]', f'is {size}, the cascade makes {", ".join(map(str, made))}')
    for i, size in enumerate(self.jpeg_sizes):
      if size not in (self.keep or made):
        written = ', '.join(map(str, self.keep or made))
        raise Invalid(f'jpeg_sizes[{i}]', f'is {size}, the sizes that are written are {written}')
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if contents.class_names == ():
      raise Invalid('dataset.name', f'is {self.dataset.name!r}, which has no classes')
    self.text.require_classes(contents.class_names, jobs, 'text')

  def format_of(self, size: int) -> str:
    """Returns the format of the image files of a size."""
    return 'jpeg' if size in self.jpeg_sizes else self.image_format

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
  stages, origins = load_cascade(config.stages, folder, on_devices=not config.stage_by_stage)
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
    # not where it is empty: a data set that grows knows images by what its plan says of their form
    **({'jpeg_sizes': sorted(config.jpeg_sizes)} if config.jpeg_sizes else {}),
    'plan': 'the images of each class are spread evenly, so that a prefix keeps the ratio of the classes',
  }
  if is_first():
    set_aside(folder.path, plan)
  wait_for_all(f'{folder.name}: plan')
  kept = KeptImages(folder.path)
  cascade = Cascade(stages, text.states, config.seed, config.batch_size, stage_by_stage=config.stage_by_stage)
  # of another plan, a shard of this name had other images
  partial_dir = folder.path / 'partial' / json_hash(plan)
  _make_missing(config, folder, cascade, text, origins, shards, kept, partial_dir)
  folder.worker.end(folder.name, lambda: are_written(shards), 'shards')
  manifest = {
    'origin': folder.origin,
    'license': config.license,
    **plan,
    'shards': sample_folder.hashes_by_size(shards),
  }
  sample_folder.finish(folder.path, shards, manifest, stages[0].stage.channels, config.license)
  kept.delete()
  delete_tree(partial_dir.parent)
  return {key: manifest[key] for key in sample_folder.SUMMARY}


def _class_counts(config: Config, source: Source) -> list[int]:
  """Returns how many images of each class are made."""
  if config.per_class is not None:
    return [config.per_class] * len(source.class_names)
  assert config.times_real is not None
  # the first process reads the classes, and leaves them for the others
  with first_before_others('class counts'):
    counts = source.class_counts()
  return (config.times_real * counts).tolist()


def _make_missing(
  config: Config,
  folder: JobFolder,
  cascade: Cascade,
  text: EmbeddedText,
  origins: list[dict[str, Any]],
  shards: Sequence[Shard],
  kept: KeptImages,
  partial_dir: epath.Path,
) -> None:
  """Makes this worker's shards, but those that are there."""

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

  mine = folder.worker.part(shards)
  begun, sampling = time.perf_counter(), _Sampling()
  # while a shard is drawn, the one before it may still be written
  with progress(sum(map(len, mine)), folder.name) as bar, contextlib.ExitStack() as before:
    for shard, is_written in zip(mine, are_written(mine)):
      if is_written:
        bar.update(len(shard))
        continue
      wanted = [fields(*place) for place in zip(shard.labels.tolist(), shard.indices.tolist())]
      name = next(iter(shard.files.values())).stem
      with (
        Handover(functools.partial(_write, config, shard, kept), _MAX_WAITING_BYTES) as writing,
        keeping_rows(partial_dir / name, f'{folder.name}: {name}') as partial,
      ):
        for image in _images(cascade, shard, wanted, kept, partial, sampling):
          writing.put(image, image.num_bytes)
          bar.update()
      before.close()
      before.callback(_end, writing, partial)
  if sampling.num_images:
    seconds = time.perf_counter() - begun
    waited = 1 - sampling.seconds / seconds
    say(f'{folder.name}: sampling waited {waited:.1%} of {seconds:,.0f} s for encoding and the disk')


def _end(writing: Handover[Any], partial: KeptRows) -> None:
  """Waits until a shard is whole, for which no images need to be kept any more."""
  writing.wait()
  partial.delete()


class _Sampling:
  """How much has been sampled, and how long that took."""

  num_images = 0
  seconds = 0.0

  def timed(self, batches: Iterator[Drawn], partial: KeptRows) -> Iterator[Drawn]:
    """Yields batches that are drawn; the time in which `partial` waited for the disk is not counted."""
    while True:
      begun, waited = time.perf_counter(), partial.seconds_waited
      batch = next(batches, None)
      self.seconds += time.perf_counter() - begun - (partial.seconds_waited - waited)
      if batch is None:
        return
      self.num_images += batch.num_images
      yield batch


class _Image(NamedTuple):
  """An image that a shard is to have."""

  # its record, but for what it looks like
  fields: dict[str, Any]
  # its size -> uint8 [S, S, C]; None if it was drawn for an earlier version of the data set
  pixels: dict[int, np.ndarray] | None
  # if so, its size -> where it is, for `KeptImages.read`
  rows: dict[int, int] | None

  @property
  def num_bytes(self) -> int:
    """Returns how much memory it takes."""
    return 0 if self.pixels is None else sum(pixels.nbytes for pixels in self.pixels.values())

  def record(self, size: int, kept: KeptImages) -> Record:
    """Returns its record of a size."""
    if self.pixels is not None:
      return Record(self.pixels[size], **self.fields)
    assert self.rows is not None
    return kept.read(size, self.rows[size], self.fields)


def _images(
  cascade: Cascade,
  shard: Shard,
  wanted: Sequence[dict[str, Any]],
  kept: KeptImages,
  partial: KeptRows,
  sampling: _Sampling,
) -> Iterator[_Image]:
  """Yields the images of a shard in order: those that are kept, and the others drawn.

  `partial` has those of these that were drawn before a kill. `sampling` learns how long the rest took.
  """
  found = [kept.find(of, shard.files) for of in wanted]
  rows = np.array([row for row, places in enumerate(found) if places is None], int)
  sizes = [trained.stage.size for trained in cascade.stages]
  batches = cascade.sample(shard.labels[rows], shard.indices[rows], kept=partial, exact=False)
  drawn = (
    dict(zip(sizes, pixels)) for batch in sampling.timed(batches, partial) for pixels in zip(*batch.pixels)
  )
  for of, places in zip(wanted, found):
    yield _Image(of, next(drawn) if places is None else None, places)


def _write(config: Config, shard: Shard, kept: KeptImages, images: Iterator[_Image]) -> None:
  """Writes the images of a shard at all sizes, as they come."""
  with contextlib.ExitStack() as stack:
    append = {
      size: stack.enter_context(open_shard(path, config.format_of(size), config.quality, keep_hash=True))
      for size, path in shard.files.items()
    }
    for image in images:
      for size in append:
        append[size](image.record(size, kept))
