"""The card of a generated data set: a README.md and a picture, for whoever is given the folder."""

import pathlib
from typing import Any

import numpy as np

from imagenet_synth.core.files import write_atomic
from imagenet_synth.data.picture_grid import save_grid
from imagenet_synth.data.records import ShardSource

_COLUMNS, _ROWS = 10, 6


def write(path: pathlib.Path, manifest: dict[str, Any], license_name: str) -> None:
  """Writes README.md and samples.png into `path`, the folder of the finished shards.

  Args:
    path: holds the shards, in a folder for each size.
    manifest: what `jobs/generate.py` writes into manifest.json.
    license_name: the license that the images are under, as the card names it.
  """
  largest = max(manifest['sizes'])
  first = ShardSource([path / str(largest) / min(manifest['shards'][str(largest)])])
  pictures = np.stack([first[i]['image'] for i in range(min(_COLUMNS * _ROWS, len(first)))])
  save_grid(path / 'samples.png', pictures, _COLUMNS)
  write_atomic(path / 'README.md', _text(manifest, license_name))


def _text(manifest: dict[str, Any], license_name: str) -> str:
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
  origin = manifest['origin']
  return f"""# Synthetic images: {origin['job']}

![The first images](samples.png)

- License: {license_name}
- Images: {manifest['num_images']:,} at each of {sizes}; {_per_class(manifest['class_counts'])} of each of
  {len(manifest['class_names']):,} classes. None of them is a photo: all were drawn by a diffusion model.
- Plan: {manifest['plan']}. Seed {manifest['seed']}.{_reduced(manifest)}
- Files: `SIZE/train-*.tfrecord`, their SHA-256 beside them (`sha256sum --check *.sha256`) and in
  `manifest.json`. The `*.index` beside a shard says where its records are, and can be made anew.
- TFDS reads a size as `tfds.builder_from_directory('SIZE').as_dataset(split='train')`.
- Made by job `{origin['job']}`, configuration `{origin['config_hash']}`, code `{origin['revision']}`.

| Stage | Step | Weights | Sampler |
| --- | --- | --- | --- |
{stages}

| Label | Class | Prompt | Images |
| --- | --- | --- | --- |
{classes}
"""


def _reduced(manifest: dict[str, Any]) -> str:
  """Returns a sentence on the larger images that these were made from; '' if there are none."""
  before = manifest.get('reduced_from')
  return f'\n  Reduced from {before["size"]}x{before["size"]} of job `{before["samples"]}`.' if before else ''


def _per_class(counts: list[int]) -> str:
  fewest, most = min(counts), max(counts)
  return f'{fewest:,}' if fewest == most else f'{fewest:,} to {most:,}'


def _sampler(stage: dict[str, Any]) -> str:
  return ', '.join(f'{name} {value}' for name, value in stage['sampler'].items() if value is not None)
