"""Grids of images as PNG files, for people to look at."""

import io

import numpy as np
from etils import epath

from imagenet_synth.core import images
from imagenet_synth.core.files import make_folder, write_atomic
from imagenet_synth.data.decode import as_picture


def save_grid(path: epath.Path, pictures: np.ndarray, num_columns: int, min_size: int = 64) -> np.ndarray:
  """Writes a grid of pictures uint8 [N, S, S, C] as a PNG file, and returns it: uint8 [H, W, C].

  Pictures smaller than `min_size` pixels are enlarged by a whole number, so that their pixels stay
  squares.
  """
  scale = max(1, min_size // pictures.shape[1])
  grid = images.grid(pictures, num_columns, scale)
  make_folder(path.parent)
  file = io.BytesIO()
  as_picture(grid).save(file, 'png')
  write_atomic(path, file.getvalue())
  return grid
