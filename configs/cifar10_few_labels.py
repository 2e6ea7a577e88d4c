"""Few labels: what do generated images add to 5,000 labelled photos of CIFAR-10?

    python -m imagenet_synth.main --config configs/cifar10_few_labels.py

The paper's setting at the size of cifar10_small.py, from which this differs in who knows what: the cascade is
first trained on 40,000 photos without labels (in the place of Imagen's corpus), then on the 5,000 that the
classifiers have too. They train on these, on as many generated ones, and on both with up to four times as
many, for the same number of steps each.
"""

from configs import cifar10_small as small
from configs import quickstart
from imagenet_synth.core.config import jobs_config

LABELLED, UNLABELLED = small.images('train[:5000]'), small.images('train[5000:90%]')
SEEDS = (0, 1, 2)
# from the sweeps of cifar10_small.py: the guidance best for CAS, the log-variance best for FID
BASE_SAMPLER = quickstart.sampler(32, guidance=1.5, logvar=0.3)
SR_SAMPLER = quickstart.sampler(16, logvar=0.3)
RECIPE = dict(quickstart.recipe(1e-2, 0.05, num_steps=1000, batch_size=64, crop_padding=4), flip=True)


def pretraining(stage, num_steps, sampler):
  """Without any text; guidance 0 previews that."""
  return small.training(
    'pretrain', 'embed_classes', 'adam', num_steps, dict(sampler, guidance=0.0), stage=stage
  ) | dict(dataset=UNLABELLED, text_dropout=1.0)


def finetuning(init, optimizer, num_steps, sampler):
  return small.training('finetune', 'embed_classes', optimizer, num_steps, sampler, init=init) | dict(
    dataset=LABELLED
  )


def get_config():
  jobs = {}
  jobs['embed_classes'] = dict(
    job='embed', dataset=LABELLED, prompts='classes', encoder=quickstart.ENCODER, max_length=32
  )
  jobs['pretrain_base'] = pretraining(small.BASE, 2500, BASE_SAMPLER)
  jobs['pretrain_sr32'] = pretraining(small.SR_32, 600, SR_SAMPLER)
  jobs['finetune_base'] = finetuning('pretrain_base', 'adafactor', 1500, BASE_SAMPLER)
  jobs['finetune_sr32'] = finetuning('pretrain_sr32', 'adam', 200, SR_SAMPLER)

  classify = dict(
    job='classify', model=small.RESNET, recipe=RECIPE, size=32, real=LABELLED, test=small.TEST, seeds=SEEDS
  )
  jobs['classify_real'] = dict(classify, mixtures=dict(real=dict(real=True)))
  measured = dict(text='embed_classes', extractor='classify_real', batch_size=100)
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    sampler=BASE_SAMPLER,
    reference=small.VALIDATION,
    per_class=50,
    **measured,
  )
  jobs['generate'] = dict(
    job='generate',
    text='embed_classes',
    dataset=LABELLED,
    times_real=4,
    shard_size=500,
    batch_size=100,
    stages=[
      dict(weights='select_base', sampler=BASE_SAMPLER),
      dict(weights='finetune_sr32', sampler=SR_SAMPLER),
    ],
  )
  jobs['evaluate'] = dict(
    job='evaluate',
    samples='generate',
    sizes=(16, 32),
    extractor='classify_real',
    references=dict(train=LABELLED, validation=small.VALIDATION),
  )
  mixtures = {f'synthetic_{n}x': dict(real=False, synthetic='generate', synthetic_times=n) for n in (1, 4)}
  mixtures |= {f'both_{n}x': dict(real=True, synthetic='generate', synthetic_times=n) for n in (1, 2, 4)}
  jobs['classify_synthetic'] = dict(classify, mixtures=mixtures)
  jobs['report'] = dict(job='report', title='Few labels: CIFAR-10', jobs=tuple(jobs))
  return jobs_config(jobs)
