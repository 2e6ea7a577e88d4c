"""The reduce job: the images of a generate job are written at smaller sizes, once for all that read them.

A classifier that trains on 1024x1024 images at 256x256 decodes and reduces each of them in every epoch. Here
that is done once, by the same resizing. Shards have the names and the records of those that they are made
from, and exist whole or not at all; several workers can share them. What is made is a data set of its own,
and can stand wherever a generate job can.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

from etils import epath

from imagenet_synth.core.config import Count, Distinct, Invalid, NotEmpty, Range
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import progress
from imagenet_synth.data import licenses, sample_folder
from imagenet_synth.data.batches import resize
from imagenet_synth.data.records import FIELDS, Record, ShardSource, open_shard
from imagenet_synth.data.shard_plan import Shard, are_written, plan_shards
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples

# images of a shard that are in memory at a time
_NUM_AT_A_TIME = 64


@dataclasses.dataclass(frozen=True)
class Config:
  """Which images are reduced, to which sizes, and in what form they are written."""

  # the generate job whose images are reduced
  samples: Samples
  # the size (height and width) that is read, one of those that the job has written
  size: Count
  # the sizes that are written, all smaller
  to: Annotated[tuple[Count, ...], NotEmpty(), Distinct()]
  # the format of the image files in the records
  image_format: Literal['png', 'jpeg'] = 'png'
  # the quality of JPEG files
  quality: Annotated[int, Range(low=1, high=95)] = 95
  # the license that the data set's card states
  license: str = licenses.NOT_STATED

  def validate(self) -> None:
    """Raises `Invalid` if images were to be enlarged."""
    for i, size in enumerate(self.to):
      if size >= self.size:
        raise Invalid(f'to[{i}]', f'is {size}, must be smaller than size {self.size}')

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if there are no images of the size that is read."""
    self.samples.require_size(self.size, jobs, 'size')

  @property
  def reduced_from(self) -> Samples:
    """Returns the job whose images they were."""
    return self.samples

  def image_sizes(self, jobs: KnownJobs) -> tuple[int, ...]:
    """Returns the sizes of the images that are written."""
    return self.to

  def image_channels(self, jobs: KnownJobs) -> int:
    """Returns 1 for grey images, 3 for RGB."""
    return self.samples.channels(jobs)

  def num_images(self, jobs: KnownJobs) -> int | None:
    """Returns how many images of each size are made; None if only the data set tells it."""
    return self.samples.num_images(jobs)

  def class_names(self, jobs: KnownJobs) -> tuple[str, ...] | None:
    """Returns the classes of the images; None if only the data set tells them."""
    return self.samples.class_names(jobs)


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Makes this worker's missing shards; when all are there, writes the manifest and returns most of it.

  Raises:
    Unfinished: the other workers have not made theirs yet.
  """
  samples = config.samples.open(folder)
  before = samples.manifest
  shards = plan_shards(folder.path, before['class_counts'], config.to, before['shard_size'])
  work = list(zip(samples.shards(config.size), shards, strict=True))
  mine = folder.worker.part(work)
  with (
    progress(sum(len(shard) for _, shard in mine), folder.name) as bar,
    # more threads than cores, as some wait for the disk
    ThreadPoolExecutor((os.cpu_count() or 1) + 4) as pool,
  ):
    for (path, shard), is_written in zip(mine, are_written([shard for _, shard in mine])):
      if is_written:
        bar.update(len(shard))
        continue
      for _ in _reduced(path, shard, config, pool):
        bar.update()
  folder.worker.end(folder.name, lambda: are_written(shards), 'shards')
  manifest = {
    **before,
    'origin': folder.origin,
    'license': config.license,
    'sizes': list(config.to),
    'image_format': config.image_format,
    'quality': config.quality,
    'reduced_from': {'samples': config.samples.name, 'size': config.size},
    'shards': sample_folder.hashes_by_size(shards),
  }
  manifest.pop('jpeg_sizes', None)
  num_channels = ShardSource([work[0][0]])[0]['image'].shape[-1]
  sample_folder.finish(folder.path, shards, manifest, num_channels, config.license)
  return {key: manifest[key] for key in (*sample_folder.SUMMARY, 'reduced_from')}


def _reduced(path: epath.Path, shard: Shard, config: Config, pool: ThreadPoolExecutor) -> Iterator[None]:
  """Writes a shard at all sizes, given that of the larger images; yields after each image."""
  source = ShardSource([path])

  def reduced(row: int) -> list[Record]:
    example = source[row]
    fields = {name: example[name] for name in FIELDS}
    return [Record(resize(example['image'], size), **fields) for size in shard.files]

  with contextlib.ExitStack() as stack:
    append = [
      stack.enter_context(open_shard(to, config.image_format, config.quality, keep_hash=True))
      for to in shard.files.values()
    ]
    for start in range(0, len(source), _NUM_AT_A_TIME):
      for records in pool.map(reduced, range(start, min(start + _NUM_AT_A_TIME, len(source)))):
        for append_to, record in zip(append, records):
          append_to(record)
        yield
