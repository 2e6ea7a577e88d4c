"""evaluate: shards -> FID against train and validation, and Inception Score, at each size."""

import dataclasses
from typing import Any

from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.pipeline import Images
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs.measure import References, load_extractor, measure, real_images


@dataclasses.dataclass(frozen=True)
class Config:
  """samples: a generate job. sizes: of its images. num_splits: of the Inception Score."""
  samples: str
  sizes: tuple[int, ...]
  extractor: str
  references: References
  num_splits: int = 10


def run(config: Config, folder: Folder) -> dict[str, Any]:
  extractor = load_extractor(config.extractor, folder)
  samples = folder.input(config.samples)
  sizes = {}
  with progress(len(config.sizes), folder.name, unit='size') as bar:
    for size in config.sizes:
      references = config.references.moments(extractor, size, folder)
      source = ShardSource(sorted((samples / str(size)).glob('*.tfrecord')))
      pictures, _ = Images(source, size, lambda example: example['label']).all()
      # what real images of the other split get: no generator need do better
      real, _ = real_images(config.references.validation, size, folder)
      sizes[size] = {**measure(extractor, pictures, references, config.num_splits),
                     'real': measure(extractor, real, {'train': references['train']},
                                     config.num_splits)}
      bar.update()
  return {'samples': config.samples, 'sizes': sizes, 'extractor': extractor.described}
