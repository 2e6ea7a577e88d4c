"""export: the shards of a generate job in the form that other tools read.

'webdataset': tar files for PyTorch's WebDataset, KEY.png, KEY.cls and KEY.json for each image. 'folder': a
file for each image, train/CLASS/KEY.png with train/metadata.jsonl, as Hugging Face's imagefolder and
torchvision's ImageFolder read it. 'adm': samples.npz with `arr_0`, the images, and `arr_1`, their labels,
as the evaluator of ADM reads it.
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

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, write_atomic
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.data.records import ShardSource


@dataclasses.dataclass(frozen=True)
class Config:
  """samples: the generate job. size: of the images. form: what is written."""

  samples: str
  size: int
  form: Literal['webdataset', 'folder', 'adm']


def run(config: Config, folder: Folder) -> dict[str, Any]:
  source = folder.input(config.samples)
  manifest = read_json(source / 'manifest.json')
  if config.size not in manifest['sizes']:
    raise InputError(f'config: {folder.name}.size is {config.size}, {config.samples} has {manifest["sizes"]}')
  shards = sorted(manifest['shards'][str(config.size)])
  if config.form == 'adm':
    _write_npz(folder, ShardSource([source / str(config.size) / name for name in shards]))
    return {'num_images': manifest['num_images'], 'form': config.form, 'size': config.size}
  write = _write_tar if config.form == 'webdataset' else _write_files
  start = 0
  with progress(manifest['num_images'], folder.name) as bar:
    for name in shards:
      examples = ShardSource([source / str(config.size) / name])
      write(folder.path, name.removesuffix('.tfrecord'), list(_items(examples, start)))
      start += len(examples)
      bar.update(len(examples))
  if config.form == 'folder':
    _write_metadata(folder.path, shards)
  return {'num_images': start, 'form': config.form, 'size': config.size}


def _items(examples: ShardSource, start: int) -> Iterator[tuple[str, dict[str, Any]]]:
  """(key, example); the key is the image's number in the data set."""
  for number in range(len(examples)):
    yield f'{start + number:09d}', examples[number]


def _described(example: dict[str, Any]) -> dict[str, Any]:
  return {name: example[name] for name in ('label', 'class_name', 'wnid', 'prompt', 'index', 'seed')}


def _suffix(example: dict[str, Any]) -> str:
  return 'png' if example['encoded'].startswith(b'\x89PNG') else 'jpg'


def _write_tar(path: pathlib.Path, name: str, items: list[tuple[str, dict[str, Any]]]) -> None:
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


def _write_npz(folder: Folder, examples: ShardSource) -> None:
  """Image by image: all at once they may not fit into memory."""
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


def _write_metadata(path: pathlib.Path, shards: list[str]) -> None:
  parts = [path / 'metadata' / f'{name.removesuffix(".tfrecord")}.jsonl' for name in shards]
  write_atomic(path / 'train' / 'metadata.jsonl', b''.join(part.read_bytes() for part in parts))
