"""What a generate job hands on."""

from types import SimpleNamespace

import numpy as np
import pytest

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.records import Record, shard_name, write_shard
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples

_NAMES = [shard_name(number, 2) for number in range(2)]


def _generated(workdir, finished=True, kinds=('finetune', 'pretrain')):
  """A generate job of three images of two sizes, whose greys are 10 times their number."""
  folder = JobFolder(workdir, 'generate', {'job': 'generate'})
  folder.start()
  for size in (2, 4):
    records = [Record(np.full((size, size, 1), 10 * i, np.uint8), i, 'a', 0, 7, 'a', []) for i in range(3)]
    write_shard(folder.path / str(size) / _NAMES[0], records[:2])
    write_shard(folder.path / str(size) / _NAMES[1], records[2:])
  manifest = {
    'sizes': [2, 4],
    'num_images': 3,
    'class_names': ['b', 'a', 'c'],
    'stages': [{'kind': kind} for kind in kinds],
    # as in a JSON file that somebody has sorted otherwise
    'shards': {str(size): dict.fromkeys(reversed(_NAMES), '') for size in (2, 4)},
  }
  write_json(folder.path / 'manifest.json', manifest)
  if finished:
    folder.finish({})
  return JobFolder(workdir, 'evaluate', {'job': 'evaluate'})


def test_a_finished_job_hands_on_its_images_in_order(tmp_path):
  reader = _generated(tmp_path)
  samples = Samples('generate').open(reader)
  assert samples.path == tmp_path / 'generate' and list(reader.origin['inputs']) == ['generate']
  assert samples.sizes == [2, 4] and samples.num_images == 3 and samples.class_names == ['b', 'a', 'c']
  for size in samples.sizes:
    assert samples.shards(size) == [samples.path / str(size) / name for name in _NAMES]
    images = samples.images(size)
    assert len(images) == 3
    for i in range(3):
      np.testing.assert_array_equal(images[i]['image'], np.full((size, size, 1), 10 * i))


def test_an_unfinished_job_hands_on_nothing(tmp_path):
  with pytest.raises(InputError, match='evaluate needs generate, which has not been run to its end'):
    Samples('generate').open(_generated(tmp_path, finished=False))


@pytest.mark.parametrize(
  'kinds, expected',
  [(['finetune', 'pretrain'], True), (['pretrain', 'finetune'], False), (['import_weights'], False)],
)
def test_samples_are_finetuned_if_their_base_is(kinds, expected, tmp_path):
  assert Samples('generate').open(_generated(tmp_path, kinds=kinds)).is_finetuned is expected


class _Generate:
  """The configuration of a generate job, as far as it is asked."""

  def image_sizes(self, jobs):
    return (8, 16)


def test_sizes_that_are_not_made_are_refused(tmp_path):
  jobs, samples = KnownJobs({'generate': _Generate()}, tmp_path), Samples('generate')
  assert samples.sizes(jobs) == (8, 16)
  samples.require_size(16, jobs, 'size')
  with pytest.raises(Invalid) as fault:
    samples.require_size(32, jobs, 'mixtures.both.size')
  assert (fault.value.key, fault.value.what) == ('mixtures.both.size', 'is 32, generate makes 8, 16')


def test_reduced_images_are_known_by_the_job_that_drew_them(tmp_path):
  jobs = KnownJobs(
    {
      'generate': SimpleNamespace(reduced_from=None),
      'half': SimpleNamespace(reduced_from=Samples('generate')),
      'quarter': SimpleNamespace(reduced_from=Samples('half')),
    },
    tmp_path,
  )
  assert {Samples(name).drawn_by(jobs) for name in ('generate', 'half', 'quarter')} == {Samples('generate')}
