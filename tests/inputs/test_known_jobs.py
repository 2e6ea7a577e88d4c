"""What is known of jobs before any of them runs, and who tells it."""

import inspect

import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.config import Reference
from imagenet_synth.inputs.known_jobs import KnownJobs, MakesSamples, MakesText, MakesWeights
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.inputs.stages import Sweep, Weights
from imagenet_synth.inputs.text import Text


def test_jobs_are_found_by_name_and_by_reference(tmp_path):
  jobs = KnownJobs({'embed': 'a', 'train': 'b'}, tmp_path)
  assert dict(jobs) == {'embed': 'a', 'train': 'b'} and len(jobs) == 2 and 'generate' not in jobs
  assert jobs['train'] == jobs.of(Reference('train')) == jobs.of(Weights('train')) == 'b'
  with pytest.raises(KeyError):
    jobs.of(Text('generate'))


def _methods(protocol):
  return [name for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != '_']


@pytest.mark.parametrize(
  'reference, protocol', [(Text, MakesText), (Weights, MakesWeights), (Samples, MakesSamples)]
)
def test_all_kinds_that_a_reference_may_name_tell_what_it_asks(reference, protocol):
  assert reference.kinds and _methods(protocol)
  for kind in reference.kinds:
    for name in _methods(protocol):
      made = getattr(pipeline.JOBS[kind].config, name)
      asked = getattr(protocol, name)
      assert list(inspect.signature(made).parameters) == list(inspect.signature(asked).parameters)


def _all_references(cls=Reference):
  return [of for sub in cls.__subclasses__() for of in (sub, *_all_references(sub))]


def test_references_name_kinds_of_jobs_that_there_are():
  named = [cls for cls in _all_references() if cls.__module__.startswith('imagenet_synth.')]
  assert {Text, Weights, Samples, Sweep} <= set(named)
  for cls in named:
    assert set(cls.kinds) <= set(pipeline.JOBS), cls
