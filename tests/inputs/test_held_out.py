"""Choices on validation, claims on test: what a job that tests may have been made from."""

import dataclasses
import json

import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.config import Reference, parts
from imagenet_synth.core.errors import InputError
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages, require_held_out
from imagenet_synth.inputs.known_jobs import KnownJobs
from tests.configs import complete


def _digits(split):
  return DatasetConfig('digits', split)


@dataclasses.dataclass(frozen=True)
class _Job:
  """A job that is made from others."""

  made_from: tuple[Reference, ...] = ()
  images: RealImages = RealImages()

  def real_images(self):
    return self.images


@dataclasses.dataclass(frozen=True)
class _Samples:
  """A job of a kind that uses no real images."""

  stages: tuple[Reference, ...]


def _known(tmp_path, **changed):
  """A stage is trained, chosen and swept, its images are tested; another classifier has real ones alone."""
  jobs = dict(
    finetune=_Job(images=RealImages(trained_on={'dataset': _digits('train')})),
    select=_Job((Reference('finetune'),), RealImages(chosen_by={'reference': _digits('validation[:50%]')})),
    sweep=_Job((Reference('select'),), RealImages(chosen_by={'cas.test': _digits('validation[50%:]')})),
    generate=_Samples((Reference('select'), Reference('sweep'))),
    both=_Job(
      (Reference('generate'),),
      RealImages(trained_on={'real': _digits('train')}, tested_on={'test': _digits('test')}),
    ),
    real=_Job(
      images=RealImages(trained_on={'real': _digits('train[:300]')}, tested_on={'test': _digits('test')})
    ),
  )
  for name, images in changed.items():
    jobs[name] = dataclasses.replace(jobs[name], images=images)
  return KnownJobs(jobs, tmp_path)


def test_jobs_that_test_on_held_out_images_pass(tmp_path):
  jobs = _known(tmp_path)
  for name in jobs:
    require_held_out(name, jobs)


@pytest.mark.parametrize(
  'changed, message',
  [
    (
      dict(select=RealImages(chosen_by={'reference': _digits('test[:10]')})),
      "jobs.both.test is 'digits test', which has images of jobs.select.reference, 'digits test[:10]': what "
      'is tested was chosen by these; choose by others, such as a validation split',
    ),
    (
      dict(sweep=RealImages(chosen_by={'cas.test': _digits('test')})),
      "jobs.both.test is 'digits test', which has images of jobs.sweep.cas.test, 'digits test': what is "
      'tested was chosen by these; choose by others, such as a validation split',
    ),
    (
      dict(finetune=RealImages(trained_on={'dataset': _digits('train+test')})),
      "jobs.both.test is 'digits test', which has images of jobs.finetune.dataset, 'digits train+test': what "
      'is tested was trained on these; train or test on others',
    ),
    (
      dict(both=RealImages(trained_on={'real': _digits('test')}, tested_on={'test': _digits('test')})),
      "jobs.both.test is 'digits test', which has images of jobs.both.real, 'digits test': what is tested "
      'was trained on these; train or test on others',
    ),
  ],
)
def test_seen_images_are_refused_however_far_away_they_were_seen(changed, message, tmp_path):
  with pytest.raises(InputError) as error:
    require_held_out('both', _known(tmp_path, **changed))
  assert str(error.value) == f'config: {message}'


def test_a_job_of_the_workdir_may_name_one_that_is_gone(tmp_path):
  jobs = {name: job for name, job in _known(tmp_path).items() if name != 'finetune'}
  require_held_out('both', KnownJobs(jobs, tmp_path))


def test_what_others_have_seen_does_not_matter(tmp_path):
  chosen = RealImages(chosen_by={'reference': _digits('test')})
  jobs = _known(tmp_path, select=chosen, finetune=RealImages(trained_on={'dataset': _digits('test')}))
  # of real images alone
  require_held_out('real', jobs)
  # choices may be by the same images, one after the other, and by those that were trained on
  again = _known(tmp_path, select=chosen, sweep=chosen)
  for name in ('select', 'sweep', 'generate'):
    require_held_out(name, again)


def test_every_kind_of_job_that_names_real_images_says_what_it_does_with_them(tmp_path):
  plan = pipeline.plan(json.loads(complete.get_config().to_json_best_effort()), tmp_path)
  kinds = {job.folder.config['job']: job.config for job in plan.planned}
  naming = {kind for kind, config in kinds.items() if list(parts(config, DatasetConfig))}
  saying = {kind for kind, config in kinds.items() if hasattr(config, 'real_images')}
  # these take classes, captions and numbers of them, or figures that nothing is chosen by
  assert naming - saying == {'embed', 'generate', 'evaluate'} and saying <= naming
