"""A job of each kind that needs no foreign weights, one after the other, cut down to what takes seconds."""

from ml_collections import ConfigDict

from tests.configs import tiny


def get_config():
  jobs = tiny.get_config().to_dict()['jobs']
  base = dict(weights='select_base', sampler=jobs['generate']['stages'][0]['sampler'])
  jobs['sweep_base']['per_class'] = 2
  jobs['generate'].update(stages=[base | dict(tuned_by='sweep_base')], shard_size=40, batch_size=8)
  real = jobs['classify_real']['real']
  jobs |= dict(
    reduce=dict(job='reduce', samples='generate', size=8, to=(4,)),
    score=dict(job='score', samples='generate', extractor='classify_real', real=real, size=8),
    publish=dict(job='publish', samples='generate', size=8, form='parquet'),
  )
  jobs['evaluate']['sizes'] = (8,)
  mixture = dict(real=False, synthetic='generate')
  jobs['classify_resnet'].update(size=8, mixtures=dict(synthetic=mixture))
  names = (
    'embed_captions',
    'embed_classes',
    'pretrain_base',
    'finetune_base',
    'classify_real',
    'select_base',
  )
  names += ('sweep_base', 'generate', 'reduce', 'score', 'publish', 'evaluate', 'classify_resnet')
  jobs['report']['jobs'] = names
  names = (*names, 'report')
  return ConfigDict(dict(jobs={name: jobs[name] for name in names}, order=names))
