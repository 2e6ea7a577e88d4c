"""The export job: the images of a generate job are written in a form that other tools read.

'webdataset' writes tar files for PyTorch's WebDataset, with KEY.png, KEY.cls and KEY.json for each image.
'folder' writes a file for each image, train/CLASS/KEY.png, and train/metadata.jsonl, as Hugging Face's
imagefolder and torchvision's ImageFolder read them. 'adm' writes samples.npz with `arr_0`, the images, and
`arr_1`, their labels, as ADM's evaluator reads it. KEY is the image's number in the data set; the suffix is
jpg where the images are JPEG files.
"""

import dataclasses
import io
import json
import os
import pathlib
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from imagenet_synth.core.config import Count
from imagenet_synth.core.files import write_atomic
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.records import ShardSource
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples, SampleSet


@dataclasses.dataclass(frozen=True)
class Config:
  """Which images are written, and in which form."""

  # the generate job whose images are written
  samples: Samples
  # height and width of the images, one of the sizes that the job has written
  size: Count
  # the form: 'webdataset' for tar files, 'folder' for files by class, 'adm' for one npz
  form: Literal['webdataset', 'folder', 'adm']

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if there are no images of this size."""
    self.samples.require_size(self.size, jobs, 'size')


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Writes the images, and returns how many there are, in which form and at which size.

  Where the form has a file or more for each shard, those that are there are not written again.
  """
  samples = config.samples.open(folder)
  if config.form == 'adm':
    _write_npz(folder, samples.images(config.size))
  else:
    _write_shards(config, folder, samples)
  return {'num_images': samples.num_images, 'form': config.form, 'size': config.size}


def _write_shards(config: Config, folder: JobFolder, samples: SampleSet) -> None:
  """Writes tar files or files by class, shard by shard."""
  write = _write_tar if config.form == 'webdataset' else _write_files
  paths, start = samples.shards(config.size), 0
  with progress(samples.num_images, folder.name) as bar:
    for path in paths:
      examples = ShardSource([path])
      write(folder.path, path.stem, list(_items(examples, start)))
      start += len(examples)
      bar.update(len(examples))
  if config.form == 'folder':
    _write_metadata(folder.path, [path.stem for path in paths])


def _items(examples: ShardSource, start: int) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (key, example) of each image; `start` is the first one's number in the data set."""
  for number in range(len(examples)):
    yield f'{start + number:09d}', examples[number]


def _described(example: dict[str, Any]) -> dict[str, Any]:
  """Returns what is written of an example besides its image."""
  return {name: example[name] for name in ('label', 'class_name', 'wnid', 'prompt', 'index', 'seed')}


def _suffix(example: dict[str, Any]) -> str:
  return 'png' if example['encoded'].startswith(b'\x89PNG') else 'jpg'


def _write_tar(path: pathlib.Path, name: str, items: list[tuple[str, dict[str, Any]]]) -> None:
  """Writes the items of a shard into a tar file, unless it is there."""
  target = path / f'{name}.tar'
  if target.exists():
    return
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as tar:
    for key, example in items:
      for suffix, data in (
        (_suffix(example), example['encoded']),
        ('cls', str(example['label']).encode()),
        ('json', json.dumps(_described(example)).encode()),
      ):
        member = tarfile.TarInfo(f'{key}.{suffix}')
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
  write_atomic(target, file.getvalue())


def _write_files(path: pathlib.Path, name: str, items: list[tuple[str, dict[str, Any]]]) -> None:
  """Writes the items of a shard into files, and their lines of the metadata, unless these are there."""
  lines_path = path / 'metadata' / f'{name}.jsonl'
  if lines_path.exists():
    return
  lines = []
  for key, example in items:
    class_folder = example['wnid'] or example['class_name']
    file = f'{class_folder}/{key}.{_suffix(example)}'
    (path / 'train' / class_folder).mkdir(parents=True, exist_ok=True)
    write_atomic(path / 'train' / file, example['encoded'])
    lines.append(json.dumps({'file_name': file, **_described(example)}))
  lines_path.parent.mkdir(exist_ok=True)
  # last: with these lines a shard counts as done
  write_atomic(lines_path, '\n'.join(lines) + '\n')


def _write_npz(folder: JobFolder, examples: ShardSource) -> None:
  """Writes samples.npz image by image, as all at once may not fit into memory."""
  first = examples[0]['image']
  # as ADM's evaluator wants them: grey images become RGB
  shape, labels = (len(examples), *first.shape[:2], 3), []
  temporary = folder.path / 'samples.npz.tmp'
  with (
    zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive,
    progress(len(examples), folder.name) as bar,
  ):
    with archive.open('arr_0.npy', 'w', force_zip64=True) as file:
      np.lib.format.write_array_header_1_0(file, {'descr': '|u1', 'fortran_order': False, 'shape': shape})
      for number in range(len(examples)):
        example = examples[number]
        labels.append(example['label'])
        file.write(np.broadcast_to(example['image'], shape[1:]).tobytes())
        bar.update()
    with archive.open('arr_1.npy', 'w') as file:
      np.lib.format.write_array(file, np.array(labels))
  os.replace(temporary, folder.path / 'samples.npz')


def _write_metadata(path: pathlib.Path, names: list[str]) -> None:
  """Writes the metadata of all shards into one file."""
  parts = [path / 'metadata' / f'{name}.jsonl' for name in names]
  write_atomic(path / 'train' / 'metadata.jsonl', b''.join(part.read_bytes() for part in parts))
