"""Copies on this machine of what is in a bucket, for libraries that read nothing but files.

They are kept in the user's cache, so that a run that goes on finds them there. Nothing is lost with
them.
"""

import contextlib
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import (
  copy_file,
  files_below,
  is_remote,
  modified,
  unfinished_below,
  users_cache,
)
from imagenet_synth.core.progress import progress

# files that are copied at a time
_NUM_COPIERS = 8
# seconds after which a file that is not whole is taken for one of a dead process
_ABANDONED_AFTER = 24 * 3600


def local_copy(path: epath.PathLike) -> epath.Path:
  """Returns a file or folder of this machine that has what is at `path`; what is of this machine, as it is.

  What is in a bucket is copied if its copy is not there, or is of another version. Several processes may do
  so at once.

  Raises:
    InputError: nothing is at this path of a bucket.
  """
  if not is_remote(path):
    return epath.Path(path)
  states = dict(files_below(path))
  if not states:
    raise InputError(f'{path} does not exist')
  version = hashlib.sha256(repr([os.fspath(path), *sorted(states.items())]).encode()).hexdigest()[:16]
  copy = users_cache() / 'copies' / version / epath.Path(path).name
  missing = [name for name in states if not (copy / name).exists()]
  if missing:
    for left in unfinished_below(copy.parent):
      # another process may give it its name now
      with contextlib.suppress(FileNotFoundError):
        if time.time() - modified(left) > _ABANDONED_AFTER:
          left.unlink()
    with (
      progress(len(missing), f'copying {path}', unit='file') as bar,
      ThreadPoolExecutor(_NUM_COPIERS) as pool,
    ):
      for _ in pool.map(lambda name: copy_file(epath.Path(path, name), copy / name), missing):
        bar.update()
  return epath.Path(copy)
