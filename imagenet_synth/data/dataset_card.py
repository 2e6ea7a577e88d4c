"""The card of a generated data set: a README.md and a picture, for whoever is given the folder.

The card begins with YAML, as the Hugging Face Hub reads it: license, task, size, that the images are
synthetic, and which files hold them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import yaml
from etils import epath

from imagenet_synth.core.files import write_atomic
from imagenet_synth.data.licenses import License
from imagenet_synth.data.picture_grid import save_grid
from imagenet_synth.data.records import ShardSource
from imagenet_synth.data.synthetic_mark import mark

_COLUMNS, _ROWS = 10, 6
# the Hub's names of sizes, for fewer images than that
_SIZES = {
  10**3: 'n<1K',
  10**4: '1K<n<10K',
  10**5: '10K<n<100K',
  10**6: '100K<n<1M',
  10**7: '1M<n<10M',
  10**8: '10M<n<100M',
  10**9: '100M<n<1B',
}


class About(NamedTuple):
  """What is said of a data set as a whole, besides what its manifest holds."""

  # what people call it
  title: str
  # what it may be used for
  license: License
  # who publishes it; None if nobody has said
  creator: str | None = None
  # where it is published; None if nobody has said
  url: str | None = None
  # MAJOR.MINOR.PATCH
  version: str = '1.0.0'

  @property
  def tags(self) -> tuple[str, ...]:
    """Returns the words that it is found by."""
    return ('synthetic', 'diffusion', 'image-classification')

  def description(self, manifest: Mapping[str, Any]) -> str:
    """Returns what it is, in two sentences."""
    sizes = ', '.join(f'{size}x{size}' for size in manifest['sizes'])
    return (
      f'{manifest["num_images"]:,} labelled images of {len(manifest["class_names"]):,} classes, at {sizes} '
      'pixels. None of them is a photo: all are synthetic, drawn by a diffusion model.'
    )


def write(
  path: epath.Path,
  first_shard: epath.Path,
  about: About,
  manifest: Mapping[str, Any],
  files: str,
  head: Mapping[str, Any] | None = None,
) -> None:
  """Writes README.md and samples.png into `path`, the folder of the finished shards.

  Args:
    path: the folder of the data set.
    first_shard: the TFRecord shard whose first images are shown.
    about: what is said of the data set as a whole.
    manifest: what `jobs/generate.py` writes into manifest.json, with the sizes that are in `path`.
    files: what is where in the folder, and how it is read: points of a list, in Markdown.
    head: what the YAML head says besides: which files hold the images, and which columns they have.
  """
  first = ShardSource([first_shard])
  pictures = np.stack([first[i]['image'] for i in range(min(_COLUMNS * _ROWS, len(first)))])
  picture = path / 'samples.png'
  save_grid(picture, pictures, _COLUMNS)
  write_atomic(picture, mark(picture.read_bytes()))
  said = _head(about, manifest) | dict(head or {})
  head_text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=1000)
  text = f'---\n{head_text}---\n\n{_text(about, manifest, files)}'
  write_atomic(path / 'README.md', text)


def _head(about: About, manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what the YAML head says of every data set."""
  num = manifest['num_images']
  head = {
    'pretty_name': about.title,
    'license': about.license.hub_id,
    'task_categories': ['image-classification'],
    'size_categories': [next((size for limit, size in _SIZES.items() if num < limit), 'n>1B')],
    'annotations_creators': ['machine-generated'],
    'tags': list(about.tags),
  }
  if about.license.hub_id == 'other':
    head['license_name'] = about.license.name
    if about.license.link:
      head['license_link'] = about.license.link
  return head


def _text(about: About, manifest: Mapping[str, Any], files: str) -> str:
  stages = '\n'.join(
    f'| {stage["run"]} | {stage["step"]:,} | `{stage["checkpoint_hash"]}` | {_sampler(stage)} |'
    for stage in manifest['stages']
  )
  classes = '\n'.join(
    f'| {label} | {name} | {prompt} | {count:,} |'
    for label, (name, prompt, count) in enumerate(
      zip(manifest['class_names'], manifest['prompts'], manifest['class_counts'])
    )
  )
  sizes = ', '.join(f'{size}x{size}' for size in manifest['sizes'])
  origin, name, link = manifest['origin'], about.license.name, about.license.link
  return f"""# {about.title}

![The first images](samples.png)

- **All images are synthetic.** None of them is a photo: all were drawn by a diffusion model.
- License: {f'[{name}]({link})' if link else name}
- Images: {manifest['num_images']:,} at each of {sizes}; {_per_class(manifest['class_counts'])} of each of
  {len(manifest['class_names']):,} classes.
- Plan: {manifest['plan']}. Seed {manifest['seed']}.{_reduced(manifest)}
{files}
- Made by job `{origin['job']}`, configuration `{origin['config_hash']}`, code `{origin['revision']}`.

| Stage | Step | Weights | Sampler |
| --- | --- | --- | --- |
{stages}

| Label | Class | Prompt | Images |
| --- | --- | --- | --- |
{classes}
"""


def _reduced(manifest: Mapping[str, Any]) -> str:
  """Returns a sentence on the larger images that these were made from; '' if there are none."""
  before = manifest.get('reduced_from')
  return f'\n  Reduced from {before["size"]}x{before["size"]} of job `{before["samples"]}`.' if before else ''


def _per_class(counts: list[int]) -> str:
  fewest, most = min(counts), max(counts)
  return f'{fewest:,}' if fewest == most else f'{fewest:,} to {most:,}'


def _sampler(stage: Mapping[str, Any]) -> str:
  said = [f'{name} {value}' for name, value in stage['sampler'].items() if value is not None]
  if 'guide' in stage:
    said.append(f'guided away from {stage["guide"]["run"]} at step {stage["guide"]["step"]:,}')
  return ', '.join(said)
