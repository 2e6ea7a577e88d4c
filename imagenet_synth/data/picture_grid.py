"""Grids of images, for people to look at, also as PNG files."""

import io

import numpy as np
from etils import epath

from imagenet_synth.core import images
from imagenet_synth.core.files import make_folder, write_atomic
from imagenet_synth.data.decode import as_picture


def enlarged_grid(pictures: np.ndarray, num_columns: int, min_size: int = 64) -> np.ndarray:
  """Returns pictures uint8 [N, S, S, C] in rows and columns as one: uint8 [H, W, C].

  Pictures smaller than `min_size` pixels are enlarged by a whole number, so that their pixels stay
  squares.
  """
  return images.grid(pictures, num_columns, max(1, min_size // pictures.shape[1]))


def save_grid(path: epath.Path, pictures: np.ndarray, num_columns: int, min_size: int = 64) -> np.ndarray:
  """Writes an `enlarged_grid` as a PNG file, and returns it: uint8 [H, W, C]."""
  grid = enlarged_grid(pictures, num_columns, min_size)
  make_folder(path.parent)
  file = io.BytesIO()
  as_picture(grid).save(file, 'png')
  write_atomic(path, file.getvalue())
  return grid
