"""Reading of a data set of as many records as table 4 of the paper needs: time, memory, open files.

    python -m benchmarks.shards

12,000 shards of 1,000 records are simulated: a shard is a link to one file of tiny images, each has an index
of its own. No more than 256 files may be open. What is printed, of files that the system has just written and
has in its cache: the time of opening; how many records are read at random and decoded in a second, by 16
threads, and the files that are open then; the time of reading labels and indices of all; and at each point
the memory that the process has, the first time what the libraries take alone.
"""

import os
import pathlib
import resource
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imagenet_synth.data.records import Record, ShardSource, shard_name, write_shard
from imagenet_synth.data.shard_index import index_path

_NUM_SHARDS, _NUM_EACH = 12_000, 1_000
_MAX_FILES, _NUM_THREADS, _NUM_BATCHES, _BATCH_SIZE = 256, 16, 100, 256


def _write(folder):
  """Writes the data set, and returns its shards."""
  image = np.zeros((1, 1, 3), np.uint8)
  first, *others = [folder / shard_name(number, _NUM_SHARDS) for number in range(_NUM_SHARDS)]
  write_shard(first, (Record(image, i, 'a', i, 0, 'a', []) for i in range(_NUM_EACH)))
  for path in others:
    os.link(first, path)
    shutil.copyfile(index_path(first), index_path(path))
  return [first, *others]


def _resident():
  """Returns the memory of this process, in MB."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 1e6


def main():
  print(f'{_resident():.0f} MB resident before anything is done')
  with tempfile.TemporaryDirectory() as folder:
    paths = _write(pathlib.Path(folder))
    print(f'{_NUM_SHARDS:,} shards written: {_resident():.0f} MB resident', flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_FILES, _MAX_FILES))
    start = time.perf_counter()
    source = ShardSource(paths)
    seconds = time.perf_counter() - start
    print(f'{len(source):,} records opened in {seconds:.1f} s: {_resident():.0f} MB resident', flush=True)
    batches = np.random.default_rng(0).integers(0, len(source), (_NUM_BATCHES, _BATCH_SIZE)).tolist()
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
      start = time.perf_counter()
      for rows in batches:
        for row, example in zip(rows, pool.map(source.__getitem__, rows), strict=True):
          assert example['index'] == row % _NUM_EACH
    rate = _NUM_BATCHES * _BATCH_SIZE / (time.perf_counter() - start)
    num_files = len(os.listdir('/proc/self/fd'))
    print(f'{rate:,.0f} random records/s, {num_files} files open: {_resident():.0f} MB resident', flush=True)
    start = time.perf_counter()
    labels, indices = source.places()
    seconds = time.perf_counter() - start
    assert (labels == indices).all() and len(labels) == len(source)
    print(f'labels and indices in {seconds:.1f} s: {_resident():.0f} MB resident')


if __name__ == '__main__':
  main()
