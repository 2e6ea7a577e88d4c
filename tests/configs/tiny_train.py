"""A base trained alone, in enough steps to be stopped on the way; what it reads; what it draws."""

from ml_collections import ConfigDict

from tests.configs import tiny


def get_config(part=None):
  jobs = tiny.get_config().jobs
  names = {'embed': ('embed_captions',), 'classes': ('embed_captions', 'embed_classes'), None: ('embed_captions', 'pretrain_base'),
           'generate': ('embed_captions', 'embed_classes', 'pretrain_base')}[part]
  jobs = {name: jobs[name] for name in names}
  if part == 'generate':
    jobs['generate'] = dict(
        job='generate', text='embed_classes', dataset=jobs['embed_classes'].dataset, per_class=4,
        shard_size=8, batch_size=8,
        stages=[dict(weights='pretrain_base', sampler=dict(num_steps=4, thresholding='static'))])
  if 'pretrain_base' in jobs:
    jobs['pretrain_base'].update(num_steps=40, checkpoint_every=10, fsdp=2)
    jobs['pretrain_base'].preview.prompts = ('zero',)
  return ConfigDict(dict(jobs=jobs, order=tuple(jobs)))
