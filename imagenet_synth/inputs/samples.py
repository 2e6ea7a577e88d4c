"""The labelled data set of synthetic images, in shards of each size, that a generate job hands on."""

from typing import Any, ClassVar, NamedTuple

from etils import epath

from imagenet_synth.core.config import Invalid, Reference
from imagenet_synth.core.files import read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.records import ShardSource
from imagenet_synth.inputs.known_jobs import KnownJobs, MakesSamples


class SampleSet(NamedTuple):
  """A generated data set."""

  # the folder of the job that has written it
  path: epath.Path
  # manifest.json, as `jobs/generate.py` or `jobs/reduce.py` has written it
  manifest: dict[str, Any]

  @property
  def sizes(self) -> list[int]:
    """Returns the sizes (height and width) of the images, each of which is there at every size."""
    return self.manifest['sizes']

  @property
  def num_images(self) -> int:
    """Returns how many images there are of each size."""
    return self.manifest['num_images']

  @property
  def class_names(self) -> list[str]:
    """Returns the classes in the order of the images' labels, as their data set names them."""
    return self.manifest['class_names']

  @property
  def is_finetuned(self) -> bool:
    """Returns whether the base that drew the images was fine-tuned."""
    return self.manifest['stages'][0]['kind'] == 'finetune'

  def shards(self, size: int) -> list[epath.Path]:
    """Returns the shards of one size, in order."""
    return [self.path / str(size) / name for name in sorted(self.manifest['shards'][str(size)])]

  def images(self, size: int) -> ShardSource:
    """Returns the images of one size, in the order of the class plan."""
    return ShardSource(self.shards(size))


class Samples(Reference):
  """A reference to the images of a generate job, or of a job that has reduced them."""

  kinds: ClassVar[tuple[str, ...]] = ('generate', 'reduce')

  def open(self, folder: JobFolder) -> SampleSet:
    """Returns the data set that the job has written.

    Raises:
      InputError: the job has not been run to its end.
    """
    path = folder.input(self.name).path
    return SampleSet(path, read_json(path / 'manifest.json'))

  def require_size(self, size: int, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` if there are no images of exactly this size."""
    sizes = self.sizes(jobs)
    if size not in sizes:
      raise Invalid(key, f'is {size}, {self.name} makes {", ".join(map(str, sizes))}')

  def channels(self, jobs: KnownJobs) -> int:
    """Returns 1 for grey images, 3 for RGB, from the configurations alone."""
    maker: MakesSamples = jobs.of(self)
    return maker.image_channels(jobs)

  def sizes(self, jobs: KnownJobs) -> tuple[int, ...]:
    """Returns the sizes of the images as the configurations have them."""
    maker: MakesSamples = jobs.of(self)
    return maker.image_sizes(jobs)

  def num_images(self, jobs: KnownJobs) -> int | None:
    """Returns how many images of each size there will be; None if only the data set tells it."""
    maker: MakesSamples = jobs.of(self)
    return maker.num_images(jobs)

  def drawn_by(self, jobs: KnownJobs) -> 'Samples':
    """Returns the generate job that draws the images, whether or not they are reduced afterwards."""
    maker: MakesSamples = jobs.of(self)
    before = maker.reduced_from
    return self if before is None else Samples(before.name).drawn_by(jobs)

  def class_names(self, jobs: KnownJobs) -> tuple[str, ...] | None:
    """Returns the classes as the configurations have them; None if only the data set tells them."""
    maker: MakesSamples = jobs.of(self)
    return maker.class_names(jobs)
