"""The files that make a folder of finished shards a data set: what it is, for programs and for people."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from imagenet_synth.core.checksums import kept_hash
from imagenet_synth.core.files import delete_unfinished, write_json
from imagenet_synth.data import dataset_card, licenses, tfds_metadata
from imagenet_synth.data.shard_index import load_indices
from imagenet_synth.data.shard_plan import Shard

_FILES = """\
- Files: `SIZE/train-*.tfrecord`, their SHA-256 beside them (`sha256sum --check *.sha256`) and in
  `manifest.json`. The `*.index` beside a shard says where its records are, and can be made anew.
- TFDS reads a size as `tfds.builder_from_directory('SIZE').as_dataset(split='train')`."""

SUMMARY = ('stages', 'sizes', 'class_counts', 'num_images', 'shards')
"""What the result of a job that has made a data set holds of its manifest."""


def hashes_by_size(shards: Sequence[Shard]) -> dict[str, dict[str, str]]:
  """Returns the SHA-256 of each shard by its file's name, for each size."""
  return {
    str(size): {shard.files[size].name: kept_hash(shard.files[size]) for shard in shards}
    for size in shards[0].files
  }


def finish(
  path: epath.Path, shards: Sequence[Shard], manifest: dict[str, Any], num_channels: int, license_name: str
) -> None:
  """Writes what stands beside the shards, all of which are there, and at last manifest.json and README.md.

  Args:
    path: the folder of the data set, with a folder of shards for each size.
    shards: all of them, in order.
    manifest: what is known of the data set, as JSON holds it.
    num_channels: 1 (grey) or 3 (RGB).
    license_name: the license that the images are under, as the card names it.
  """
  for size in shards[0].files:
    # those that a kill has left out are made: whoever reads the data set may not be able to write there
    for _ in load_indices([shard.files[size] for shard in shards]):
      pass
    lengths = [len(shard) for shard in shards]
    tfds_metadata.write(path / str(size), lengths, num_channels, manifest['class_names'])
    delete_unfinished(path / str(size))
  write_json(path / 'manifest.json', manifest)
  about = dataset_card.About(f'Synthetic images: {path.name}', licenses.named(license_name))
  dataset_card.write(path, shards[0].files[max(shards[0].files)], about, manifest, _FILES)
