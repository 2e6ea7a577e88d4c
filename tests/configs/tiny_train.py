"""A base trained alone: what it reads ('embed'), or all of it, in enough steps to be stopped on the way."""

from ml_collections import ConfigDict

from tests.configs import tiny


def get_config(part=None):
  jobs = tiny.get_config().jobs
  names = ('embed_captions',) if part == 'embed' else ('embed_captions', 'pretrain_base')
  jobs = {name: jobs[name] for name in names}
  if part is None:
    jobs['pretrain_base'].update(num_steps=40, checkpoint_every=10, fsdp=2)
    jobs['pretrain_base'].preview.prompts = ('zero',)
  return ConfigDict(dict(jobs=jobs, order=tuple(jobs)))
