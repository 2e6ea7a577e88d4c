"""Images that were made elsewhere and are to be measured: shards, image files, or an npz in ADM's form."""

import struct
import zipfile
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import files_below, map_array, matching, open_local
from imagenet_synth.data.decode import decode_image
from imagenet_synth.data.image_folder import SUFFIXES
from imagenet_synth.data.records import ShardSource
from imagenet_synth.data.source import Examples

# what stands before an entry of a zip file; the lengths of its name and of its extra field are at the end
_LOCAL_HEADER = struct.Struct('<26xHH')


def open_images(path: epath.Path) -> Examples:
  """Returns the examples at `path`, each with an `image` uint8 [H, W, C].

  Args:
    path: a folder of *.tfrecord shards; a folder of image files, at any depth; or an npz whose array
      `arr_0` is uint8 [N, H, W, 3], as the evaluator of ADM (Dhariwal & Nichol, 2021) takes it. Files
      are taken in the order of their names.

  Raises:
    InputError: it is none of these.
  """
  if path.suffix == '.npz':
    return NpzImages(path)
  if not path.is_dir():
    raise InputError(f'{path}: no such folder or npz of images')
  shards = matching(path, '*.tfrecord')
  return ShardSource(shards) if shards else ImageFiles(path)


class ImageFiles(Examples):
  """Random access to the image files below a folder, in the order of their names.

  Raises:
    InputError: there are none; or, when one is read, it cannot be decoded.
  """

  def __init__(self, root: epath.Path):
    self._paths = [root / name for name, _ in files_below(root) if name.lower().endswith(SUFFIXES)]
    if not self._paths:
      raise InputError(f'{root}: no shards and no image files in it')

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path = self._paths[index]
    return {'image': decode_image(path.read_bytes(), 3, str(path))}


class NpzImages(Examples):
  """Random access to the images of the array `arr_0` of an npz.

  The array is read as a whole only where it is compressed.

  Raises:
    InputError: there is no such array, or it is not uint8 [N, H, W, C].
  """

  def __init__(self, path: epath.Path):
    try:
      self._images = _mapped(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
      raise InputError(f'{path}: cannot be read as an npz with an array arr_0 ({error})') from None
    if self._images.dtype != np.uint8 or self._images.ndim != 4:
      raise InputError(
        f'{path}: arr_0 is {self._images.dtype} {list(self._images.shape)}, must be uint8 [N, H, W, C]'
      )

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'image': np.asarray(self._images[index])}


def _mapped(path: epath.Path) -> np.ndarray:
  """Returns the array as a map of the file: np.load would read gigabytes of images at once."""
  with open_local(path) as file:
    with zipfile.ZipFile(file) as archive:
      entry = archive.getinfo('arr_0.npy')
    file.seek(0)
    if entry.compress_type != zipfile.ZIP_STORED:
      with np.load(file) as arrays:
        return arrays['arr_0']
    file.seek(entry.header_offset)
    name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(name_length + extra_length, 1)
    return map_array(file)
