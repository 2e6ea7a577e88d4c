"""A base alone, trained and sampled for as long as it takes to be killed on the way."""

from ml_collections import ConfigDict

from tests.configs import tiny


def get_config():
  jobs = tiny.get_config().jobs
  jobs = {name: jobs[name] for name in ('embed_captions', 'embed_classes', 'pretrain_base')}
  # TensorFlow, which writes events, finds no emulator of a bucket
  jobs['pretrain_base'].update(num_steps=60, checkpoint_every=10, save_minutes=0.0, writers=())
  sampler = dict(num_steps=64, guidance=1.25, thresholding='static')
  jobs['generate'] = dict(
    job='generate',
    text='embed_classes',
    dataset=jobs['embed_classes'].dataset,
    stages=[dict(weights='pretrain_base', sampler=sampler)],
    per_class=20,
    shard_size=10,
    batch_size=10,
  )
  return ConfigDict(dict(jobs=jobs, order=tuple(jobs)))
