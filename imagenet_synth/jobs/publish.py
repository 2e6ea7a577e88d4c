"""The publish job: the images of a generate job are written in a form that others read, to be passed on.

'parquet' is what Hugging Face's `load_dataset` reads, with a column of images, one of labels, and others of
what each image was drawn with. 'webdataset' writes tar files for PyTorch's WebDataset, with KEY.png, KEY.cls
and KEY.json for each image; 'folder' a file for each image, train/CLASS/KEY.png, and train/metadata.jsonl, as
Hugging Face's imagefolder and torchvision's ImageFolder read them; 'tfrecord' shards for TFDS. KEY is the
image's number in the data set; the suffix is jpg where the images are JPEG files. In all of these each file
says that its image is synthetic, and so do README.md, the data set's card, and croissant.json. Several
workers can share the shards; the one that finds all of them there ends the job.

'adm' is for measuring, not for passing on: samples.npz with `arr_0`, the images, and `arr_1`, their labels,
as ADM's evaluator reads it. It is written by one worker.
"""

import dataclasses
import datetime
import re
import shlex
import zipfile
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from imagenet_synth.core.checksums import kept_hash
from imagenet_synth.core.config import Count, Invalid
from imagenet_synth.core.files import (
  are_there,
  delete_unfinished,
  json_hash,
  make_folder,
  open_atomic,
  write_atomic,
  write_json,
)
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data import croissant, dataset_card, licenses, tfds_metadata
from imagenet_synth.data.published_forms import DATASET, FORMS, PARQUET, Form, Image, card_features
from imagenet_synth.data.records import ShardSource
from imagenet_synth.data.shard_index import load_indices
from imagenet_synth.data.synthetic_mark import mark
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples, SampleSet


@dataclasses.dataclass(frozen=True)
class Config:
  """Which images are written, in which form, and what is said of them."""

  # the generate job whose images are written
  samples: Samples
  # height and width of the images, one of the sizes that the job has written
  size: Count
  # 'parquet', 'webdataset' for tar files, 'folder' for files by class, 'tfrecord', or 'adm' for one npz
  form: Literal['parquet', 'webdataset', 'folder', 'tfrecord', 'adm']
  # what people call the data set; 'Synthetic images: JOB' if not given
  title: str | None = None
  # the license that the images are under, such as 'CC BY 4.0'; what the generate job states if not given
  license: str | None = None
  # where the license's text is, for one that the Hugging Face Hub has no abbreviation for
  license_link: str | None = None
  # who publishes the images
  creator: str | None = None
  # the data set's name on the Hugging Face Hub: 'USER/NAME'
  repo: str | None = None
  # the data set's version, MAJOR.MINOR.PATCH
  version: str = '1.0.0'

  def validate(self) -> None:
    """Raises `Invalid` if something is said in a form that readers of the card don't understand."""
    for key, pattern, what in (
      ('license_link', r'https?://\S+', 'must begin with https://'),
      ('repo', r'[\w.-]+/[\w.-]+', 'must be USER/NAME'),
      ('version', r'\d+\.\d+\.\d+', 'must be three numbers such as 1.0.0'),
    ):
      value = getattr(self, key)
      if value is not None and not re.fullmatch(pattern, value):
        raise Invalid(key, f'is {value!r}, {what}')

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if there are no images of this size."""
    self.samples.require_size(self.size, jobs, 'size')


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Writes the images, and returns how many there are, in which form and at which size.

  Where the form has a file or more for each shard, those that are there are not written again.
  """
  samples = config.samples.open(folder)
  if config.form == 'adm':
    file = folder.path / 'samples.npz'
    for path in folder.worker.part([file]):
      _write_npz(path, samples.images(config.size), folder.name)
    folder.worker.end(folder.name, lambda: [file.exists()], 'files')
  else:
    _publish(config, folder, samples)
  return {'num_images': samples.num_images, 'form': config.form, 'size': config.size}


def _publish(config: Config, folder: JobFolder, samples: SampleSet) -> None:
  """Writes this worker's missing shards; when all are there, what is beside them."""
  form, shards = FORMS[config.form], samples.shards(config.size)
  lengths = _lengths(shards)
  starts = np.cumsum([0, *lengths]).tolist()
  targets = [form.target(folder.path, shard.stem) for shard in shards]
  mine = folder.worker.part(range(len(shards)))
  with progress(sum(lengths[number] for number in mine), folder.name) as bar:
    for number, is_written in zip(mine, are_there([targets[number] for number in mine])):
      target = targets[number]
      if not is_written:
        make_folder(target.parent)
        form.write(target, _images(shards[number], starts[number]), samples.class_names)
        # now that all of it is in memory: in the end one worker would read the whole data set again
        kept_hash(target)
      bar.update(lengths[number])
  folder.worker.end(folder.name, lambda: are_there(targets), 'shards')
  _complete(config, folder, samples, lengths)


def _lengths(shards: Sequence[epath.Path]) -> list[int]:
  """Returns how many images each shard has."""
  lengths = [0] * len(shards)
  for number, index in load_indices(shards):
    lengths[number] = len(index.ends)
  return lengths


def _images(shard: epath.Path, start: int) -> list[Image]:
  """Returns the images of a shard, each with the statement that it is synthetic.

  Args:
    shard: TFRecords of a generate job.
    start: the number of its first image in the data set.
  """
  examples, images = ShardSource([shard]), []
  for number in range(len(examples)):
    example = examples.as_written(number)
    images.append(example | {'key': f'{start + number:09d}', 'encoded': mark(example['encoded'])})
  return images


def _complete(config: Config, folder: JobFolder, samples: SampleSet, lengths: Sequence[int]) -> None:
  """Writes what is beside the shards, all of which are there, and says how the data set is uploaded."""
  form, dataset, shards = FORMS[config.form], folder.path / DATASET, samples.shards(config.size)
  # what kills have left of files that they have interrupted must not be passed on
  delete_unfinished(dataset)
  if config.form == 'folder':
    folder.unlisted.add(dataset / 'train')
    lines = (form.target(folder.path, shard.stem).read_bytes() for shard in shards)
    write_atomic(dataset / 'train/metadata.jsonl', lines)
  if config.form == 'tfrecord':
    num_channels = ShardSource(shards[:1])[0]['image'].shape[-1]
    tfds_metadata.write(dataset / 'data', lengths, num_channels, samples.class_names)
  about, manifest = _about(config, samples), samples.manifest | {'sizes': [config.size]}
  write_json(dataset / 'croissant.json', croissant.describe(about, manifest, form, datetime.date.today()))
  dataset_card.write(dataset, shards[0], about, manifest, _files(form), _head(config, samples))
  repo = config.repo or 'USER/NAME'
  say(f'to publish it: hf upload {repo} {shlex.quote(str(dataset))} --repo-type dataset')


def _about(config: Config, samples: SampleSet) -> dataset_card.About:
  # manifests of before there was a license in them have none
  license_name = config.license or samples.manifest.get('license', licenses.NOT_STATED)
  return dataset_card.About(
    config.title or f'Synthetic images: {config.samples}',
    licenses.named(license_name, config.license_link),
    config.creator,
    config.repo and f'https://huggingface.co/datasets/{config.repo}',
    config.version,
  )


def _files(form: Form) -> str:
  """Returns what the card says of the files of a form."""
  patterns = ', '.join(f'`{pattern}`' for pattern in form.patterns)
  return f"""\
- Files: {patterns}. Each image's file says that it is synthetic, too: its XMP has IPTC's digital source type
  `trainedAlgorithmicMedia`. `croissant.json` describes the data set in Croissant 1.1.
- In Python, where FOLDER is the path of this one: `{form.reading}`"""


def _head(config: Config, samples: SampleSet) -> dict[str, Any]:
  """Returns what the card's YAML head says of the files of a form, as the Hugging Face Hub reads it."""
  form = FORMS[config.form]
  head: dict[str, Any] = {}
  if form.hub_files:
    head['configs'] = [
      {
        'config_name': 'default',
        # `datasets` has one place in its cache for all folders of one name with one head
        'description': f'shards {json_hash(samples.manifest["shards"][str(config.size)])}',
        'data_files': [{'split': 'train', 'path': form.hub_files}],
      }
    ]
  if form is PARQUET:
    head['dataset_info'] = {'features': card_features(samples.class_names)}
  return head


def _write_npz(path: epath.Path, examples: ShardSource, name: str) -> None:
  """Writes an npz image by image, as all at once may not fit into memory; `name` is the progress bar's."""
  first = examples[0]['image']
  # as ADM's evaluator wants them: grey images become RGB
  shape, labels = (len(examples), *first.shape[:2], 3), []
  with (
    open_atomic(path) as whole,
    zipfile.ZipFile(whole, 'w', zipfile.ZIP_STORED) as archive,
    progress(len(examples), name) as bar,
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
