"""ImageNet with the small cascade of cifar10_small.py: a try of the tars, the names and the path.

    python -m imagenet_synth.main --config configs/imagenet_small.py

Wants ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (or a few classes of them, packed in the same
way) in data/tensorflow_datasets/downloads/manual. Minutes on two CPU cores with a few classes; far too short
a training to be of use: to expect are images of each class, in shards of both sizes, and no number.
"""

from configs import cifar10_small, imagenet, quickstart
from imagenet_synth.core.config import jobs_config

TRAIN = imagenet.imagenet('train')
PREVIEW = ('tench', 'zebra', 'banjo', 'fiddler crab')


def get_config():
  small = cifar10_small.get_config().jobs
  jobs = {}
  jobs['embed'] = dict(small.embed_classes, dataset=TRAIN)
  for name, num_steps in (
    ('pretrain_base', 600),
    ('pretrain_sr32', 200),
    ('finetune_base', 200),
    ('finetune_sr32', 100),
  ):
    jobs[name] = dict(
      small[name],
      text='embed',
      dataset=TRAIN,
      # a few images are smaller than 32 pixels; not asking for their sizes saves a look at all
      enlarge=True,
      num_steps=num_steps,
      checkpoint_every=num_steps // 2,
      preview=dict(small[name].preview, prompts=PREVIEW, columns=4),
    )
  jobs['generate'] = dict(
    small.generate,
    text='embed',
    dataset=TRAIN,
    per_class=1,
    shard_size=100,
    stages=[
      dict(weights='finetune_base', sampler=quickstart.sampler(16)),
      dict(weights='finetune_sr32', sampler=quickstart.sampler(8)),
    ],
  )
  return jobs_config(jobs)
