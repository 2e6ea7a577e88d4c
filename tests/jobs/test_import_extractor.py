"""Inception-v3 from a file: what is imported is what the extractor has; what cannot be imported is named."""

import json

import numpy as np
import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.evaluation.extractors import ExtractorReference
from imagenet_synth.jobs import import_extractor
from tests.fixtures import reference


def _run_one(section, tmp_path):
  config = dict(jobs=dict(one=section), order=['one'])
  pipeline.run(json.loads(json.dumps(config)), tmp_path / 'run')


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(path='/nowhere'), "jobs.one.path is '/nowhere', which is not there"),
    (dict(path='configs'), "configs: no weights of FID's Inception-v3"),
    (dict(network='imagen'), "jobs.one.network is 'imagen', must be one of 'inception'"),
    (dict(job='import_weights'), 'unknown key jobs.one.network'),
  ],
)
def test_what_cannot_be_imported_is_named(tmp_path, change, message):
  with pytest.raises(InputError, match=message):
    _run_one(dict(job='import_extractor', network='inception', path='x') | change, tmp_path)


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
  """(the workdir, the results of an import that was killed at its end and of the one after it)."""
  workdir = tmp_path_factory.mktemp('run')
  np.savez(workdir / 'inception.npz', **reference.tensors('inception', gain=2.0))
  config = import_extractor.Config('inception', str(workdir / 'inception.npz'))
  folder = JobFolder(workdir, 'inception', {'job': 'import_extractor'})
  folder.start()
  first = import_extractor.run(config, folder)
  again = import_extractor.run(config, folder)
  folder.finish(again)
  return workdir, first, again


def test_a_killed_import_is_done_again(imported):
  workdir, first, again = imported
  assert again == first
  bias = np.zeros(1008, np.float32)
  with pytest.raises(InputError, match='does not fit the network'):
    load_ema(workdir / 'inception/checkpoints', 0, {'params': {'fc_bias': bias}})


def test_what_is_imported_is_what_the_extractor_has(imported):
  """A figure names the hash of the weights that it was made with."""
  workdir, result, _ = imported
  extractor = ExtractorReference('inception').open(JobFolder(workdir, 'evaluate', {}))
  assert extractor.described == f'Inception-v3 of FID (weights {result["checkpoint_hash"]})'
  assert extractor.caveat == ''


def test_parameters_are_counted_with_batch_norms_folded_into_convolutions(imported):
  """A bias is all that is left of a norm."""
  _, result, _ = imported
  left = {
    n: t for n, t in reference.tensors('inception').items() if '.bn.' not in n or n.endswith('.bn.bias')
  }
  assert result['num_params'] == sum(tensor.size for tensor in left.values())
