"""A base trained alone, in enough steps to be stopped on the way; what it reads; what it draws."""

from ml_collections import ConfigDict

from tests.configs import tiny

# steps of the sampler, images of each class and of a shard
_GENERATE = {'generate': (4, 4, 8), 'generate_slowly': (64, 40, 2)}


def get_config(part=None):
  jobs = tiny.get_config().jobs
  all_three = ('embed_captions', 'embed_classes', 'pretrain_base')
  names = {
    'embed': all_three[:1],
    'classes': all_three[:2],
    None: ('embed_captions', 'pretrain_base'),
    'generate': all_three,
    'generate_slowly': all_three,
  }[part]
  jobs = {name: jobs[name] for name in names}
  if part in _GENERATE:
    num_steps, per_class, shard_size = _GENERATE[part]
    jobs[part] = dict(
      job='generate',
      text='embed_classes',
      dataset=jobs['embed_classes'].dataset,
      per_class=per_class,
      shard_size=shard_size,
      batch_size=8,
      stages=[dict(weights='pretrain_base', sampler=dict(num_steps=num_steps, thresholding='static'))],
    )
  if 'pretrain_base' in jobs:
    jobs['pretrain_base'].update(num_steps=40, checkpoint_every=10, save_minutes=0.05, fsdp=2)
    jobs['pretrain_base'].preview.prompts = ('zero',)
  return ConfigDict(dict(jobs=jobs, order=tuple(jobs)))
