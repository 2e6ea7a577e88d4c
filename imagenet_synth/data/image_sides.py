"""How large the images of a data set are, where only a look at each of them tells.

The images of a large data set are looked at in parts, and each part is kept in a file when it is done: a run
that was killed goes on behind them. Processes that share the folder begin at different parts and divide them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from etils import epath

from imagenet_synth.core.files import read_arrays, write_arrays
from imagenet_synth.core.progress import progress
from imagenet_synth.data.source import Sides

# images of a part; of ImageNet, some seconds to minutes
_PART = 20_000


def look_at_sides(look: Callable[[int], tuple[int, str]], num: int, folder: epath.Path, what: str) -> Sides:
  """Returns how large images 0 .. `num` - 1 are.

  Args:
    look: returns the shorter side of an image and its name; called in threads.
    num: how many images there are.
    folder: where what was found is kept; it is of these images alone.
    what: the text in front of the progress bar.
  """
  paths = {start: folder / f'{start:08d}.npz' for start in range(0, num, _PART)}
  starts = list(paths)
  own = len(starts) * jax.process_index() // jax.process_count()
  missing = [start for start in starts if not paths[start].exists()]
  if missing:
    num_left = sum(min(_PART, num - start) for start in missing)
    with progress(num, what, start=num - num_left) as bar, ThreadPoolExecutor() as pool:
      for start in starts[own:] + starts[:own]:
        # also by another process meanwhile
        if paths[start].exists():
          continue
        found = []
        for pair in pool.map(look, range(start, min(start + _PART, num))):
          found.append(pair)
          bar.update(1)
        names = np.array([name.encode() for _, name in found])
        write_arrays(paths[start], pixels=np.array([side for side, _ in found], np.int32), names=names)
  parts = [read_arrays(path) for path in paths.values()]
  return Sides(*(np.concatenate([part[name] for part in parts]) for name in Sides._fields))
