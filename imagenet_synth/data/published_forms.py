"""The forms in which a shard of generated images is passed on: Parquet, tar, files by class, TFRecord.

All have the same bytes of each image, which say that it is synthetic, and the same labels. What is beside
them in the data set's folder is in `dataset_card.py` and `croissant.py`.
"""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from etils import epath

from imagenet_synth.core.files import make_folder, write_atomic
from imagenet_synth.data.decode import decode_image
from imagenet_synth.data.records import FIELDS, Record, write_shard
from imagenet_synth.data.synthetic_mark import image_format

DATASET = 'dataset'
"""The folder, below a job's, of what is passed on, and of nothing else."""

Image = dict[str, Any]
"""An image's `key`, which is its number in the data set; `encoded`, its file; `channels`; and `FIELDS`."""

# of the images of a Parquet file: whoever shows or seeks one image reads this many
_ROW_GROUP = 100
# the same of all images of a data set: it is in the card, too
_OF_ALL = ('stages',)


class Form(NamedTuple):
  """A form of a shard."""

  # the file, below the job's folder, whose being there says that the shard called {} is written
  file: str
  # what is passed on, below `DATASET`, as patterns of files
  patterns: tuple[str, ...]
  # the media type of these files; {} is 'png' or 'jpeg'
  media_type: str
  # writes the images of a shard, `file` last; takes that, the images and the names of all classes
  write: Callable[[epath.Path, Sequence[Image], Sequence[str]], None]
  # Python that reads the data set; FOLDER is its folder, which `datasets` does not take as '.'
  reading: str
  # the pattern by which the Hugging Face Hub finds the images; None if it doesn't know the form
  hub_files: str | None = None

  def target(self, folder: epath.Path, name: str) -> epath.Path:
    """Returns the file below a job's folder whose being there says that a shard is written."""
    return folder / self.file.format(name)


def hub_features(class_names: Sequence[str]) -> dict[str, Any]:
  """Returns the columns of the Parquet files as Hugging Face's `datasets` keeps their types, as JSON."""
  return {
    'image': {'_type': 'Image'},
    **{
      name: {'dtype': 'int64' if field.kind == 'int' else 'string', '_type': 'Value'}
      for name, field in FIELDS.items()
    },
    'label': {'names': list(class_names), '_type': 'ClassLabel'},
  }


def card_features(class_names: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the same columns as the head of a data set's card has them, as YAML."""
  features: list[dict[str, Any]] = []
  for name, feature in hub_features(class_names).items():
    match feature['_type']:
      case 'ClassLabel':
        numbered = {str(label): of for label, of in enumerate(feature['names'])}
        features.append({'name': name, 'dtype': {'class_label': {'names': numbered}}})
      case 'Value':
        features.append({'name': name, 'dtype': feature['dtype']})
      case kind:
        features.append({'name': name, 'dtype': kind.lower()})
  return features


def _write_parquet(target: epath.Path, images: Sequence[Image], class_names: Sequence[str]) -> None:
  """Writes a shard as a Parquet file whose schema tells `datasets` which columns are images and classes."""
  columns: dict[str, pyarrow.Array] = {
    'image': pyarrow.array(
      [{'bytes': image['encoded'], 'path': _file_name(image)} for image in images],
      pyarrow.struct({'bytes': pyarrow.binary(), 'path': pyarrow.string()}),
    )
  }
  for field, (_, kind) in FIELDS.items():
    values = [image[field] for image in images]
    if kind == 'json':
      values = [json.dumps(value, sort_keys=True) for value in values]
    columns[field] = pyarrow.array(values, pyarrow.int64() if kind == 'int' else pyarrow.string())
  described = json.dumps({'info': {'features': hub_features(class_names)}})
  table = pyarrow.table(columns).replace_schema_metadata({'huggingface': described})
  file = io.BytesIO()
  pyarrow.parquet.write_table(
    table,
    file,
    row_group_size=_ROW_GROUP,
    # readers find a row without reading its neighbours
    write_page_index=True,
    # pages end where the content says: of a data set that has grown, the Hub takes what is new alone
    use_content_defined_chunking=True,
  )
  _write(target, file.getvalue())


def _write_tar(target: epath.Path, images: Sequence[Image], class_names: Sequence[str]) -> None:
  """Writes a shard as a tar file with KEY.png, KEY.cls and KEY.json for each image."""
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as tar:
    for image in images:
      for member, data in (
        (_file_name(image), image['encoded']),
        (f'{image["key"]}.cls', str(image['label']).encode()),
        (f'{image["key"]}.json', json.dumps(_described(image)).encode()),
      ):
        info = tarfile.TarInfo(member)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
  _write(target, file.getvalue())


def _write_files(target: epath.Path, images: Sequence[Image], class_names: Sequence[str]) -> None:
  """Writes the images of a shard into folders of classes, and last what is known of them, a line for each."""
  # two folders up is the job's, as `FOLDER` has it
  root, lines = target.parents[1] / DATASET / 'train', []
  for image in images:
    class_folder = image['wnid'] or image['class_name'].replace('/', '_')
    file = f'{class_folder}/{_file_name(image)}'
    _write(root / file, image['encoded'])
    lines.append(json.dumps({'file_name': file, **_described(image)}))
  _write(target, ''.join(f'{line}\n' for line in lines))


def _write_tfrecord(target: epath.Path, images: Sequence[Image], class_names: Sequence[str]) -> None:
  """Writes a shard as a generate job does, with its hash beside it."""
  records = [
    Record(
      image=decode_image(image['encoded'], image['channels'], image['key']),
      encoded=image['encoded'],
      **{field: image[field] for field in FIELDS},
    )
    for image in images
  ]
  form = image_format(images[0]['encoded']) if images else 'png'
  write_shard(target, records, form, keep_hash=True)


def _described(image: Image) -> dict[str, Any]:
  """Returns what is written of each image besides its file."""
  return {name: image[name] for name in FIELDS if name not in _OF_ALL}


def _file_name(image: Image) -> str:
  suffix = {'png': 'png', 'jpeg': 'jpg'}[image_format(image['encoded'])]
  return f'{image["key"]}.{suffix}'


def _write(path: epath.Path, data: bytes | str) -> None:
  make_folder(path.parent)
  write_atomic(path, data)


PARQUET = Form(
  f'{DATASET}/data/{{}}.parquet',
  ('data/*.parquet',),
  'application/x-parquet',
  _write_parquet,
  "datasets.load_dataset('FOLDER', split='train')",
  'data/*.parquet',
)
"""For Hugging Face's `datasets`, and all that reads Parquet."""
WEBDATASET = Form(
  f'{DATASET}/data/{{}}.tar',
  ('data/*.tar',),
  'application/x-tar',
  _write_tar,
  "webdataset.WebDataset(sorted(glob.glob('FOLDER/data/*.tar')), shardshuffle=False).decode('pil')",
  'data/*.tar',
)
"""For PyTorch's WebDataset."""
FOLDER = Form(
  'metadata/{}.jsonl',
  ('train/*/*.png', 'train/*/*.jpg'),
  'image/{}',
  _write_files,
  "torchvision.datasets.ImageFolder('FOLDER/train')",
  'train/**',
)
"""For people, torchvision's ImageFolder, and Hugging Face's imagefolder, which reads metadata.jsonl."""
TFRECORD = Form(
  f'{DATASET}/data/{{}}.tfrecord',
  ('data/*.tfrecord',),
  'application/x-tfrecord',
  _write_tfrecord,
  "tfds.builder_from_directory('FOLDER/data').as_dataset(split='train')",
)
"""For TFDS, and the jobs of this program."""

FORMS = {'parquet': PARQUET, 'webdataset': WEBDATASET, 'folder': FOLDER, 'tfrecord': TFRECORD}
"""All forms, by the name that a config has for them."""
