"""evaluate: shards -> FID, precision and recall, and Inception Score, at each size."""

import dataclasses
from typing import Any

from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.pipeline import Images
from imagenet_synth.data.records import ShardSource
from imagenet_synth.jobs.measure import (References, in_batches, load_extractor, measure,
                                         observe)


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
      references = config.references.observed(extractor, size, folder)
      source = ShardSource(sorted((samples / str(size)).glob('*.tfrecord')))
      data = Images(source, size, lambda example: 0, cache=False)
      observed = observe(extractor, in_batches(data, f'{folder.name} {size}x{size}'))
      # what real images of the other split get: no generator need do better
      real = measure(references['validation'], {'train': references['train']}, config.num_splits)
      sizes[size] = {**measure(observed, references, config.num_splits), 'real': real}
      bar.update()
  return {'samples': config.samples, 'sizes': sizes, 'extractor': extractor.described}
