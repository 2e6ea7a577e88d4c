"""evaluate: images -> FID, precision and recall, and Inception Score, at each size."""

import dataclasses
import pathlib
from typing import Any

from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.pipeline import ExampleSource, Images
from imagenet_synth.data.samples import open_samples
from imagenet_synth.jobs.extractor import load_extractor
from imagenet_synth.jobs.measure import References, in_batches, measure, observe, provenance


@dataclasses.dataclass(frozen=True)
class Config:
  """samples: a generate job; or a path, which has a / or ends with .npz: see `open_samples`. sizes: to
  which they are brought, if they don't have them. num_splits: of the Inception Score."""

  samples: str
  sizes: tuple[int, ...]
  extractor: str
  references: References
  num_splits: int = 10


def run(config: Config, folder: Folder) -> dict[str, Any]:
  """Also writes statistics_SIZE.npz, the moments of the images' features, as ADM has them."""
  extractor = load_extractor(config.extractor, folder)
  sizes = {}
  with progress(len(config.sizes), folder.name, unit='size') as bar:
    for size in config.sizes:
      references = config.references.observed(extractor, size, folder)
      data = Images(_source(config.samples, size, folder), size, lambda example: 0, cache=False)
      observed = observe(extractor, in_batches(data, f'{folder.name} {size}x{size}'))
      observed.moments.save(folder.path / f'statistics_{size}.npz')
      # what real images of the other split get: no generator need do better
      real = measure(references['validation'].observed, {'train': references['train']}, config.num_splits)
      sizes[size] = {
        **measure(observed, references, config.num_splits),
        'real': real,
        **provenance(extractor, references),
      }
      bar.update()
  return {'samples': config.samples, 'sizes': sizes, 'extractor': extractor.described}


def _source(samples: str, size: int, folder: Folder) -> ExampleSource:
  if '/' in samples or samples.endswith('.npz'):
    return open_samples(pathlib.Path(samples).expanduser())
  return open_samples(folder.input(samples) / str(size))
