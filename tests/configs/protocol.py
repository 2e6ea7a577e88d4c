"""All jobs of the paper's protocol at 1/32 of its scale: what tests cut down, break and run.

Stages 8 -> 16 -> 32 stand for the paper's 64 -> 256 -> 1024. `glyphs`, rendered characters with captions, are
the web-scale corpus; `digits`, 600 handwritten ones of scikit-learn, are ImageNet.
"""

from configs import quickstart
from configs.quickstart import (
  CHANNELS,
  ENCODER,
  NUM_CLASSES,
  RESNET,
  RESNET_8,
  RESNET_16,
  recipe,
  sampler,
  training,
)
from imagenet_synth.core.config import jobs_config

SIZES = (8, 16, 32)
GLYPHS = dict(name='glyphs', split='train', options=dict(num_examples=12_000, seed=0))
NUM_REAL = 600
SEEDS = (0, 1, 2)


def digits(split):
  return dict(name='digits', split=split)


BASE = dict(
  size=8,
  channels=CHANNELS,
  prediction='v',
  network=dict(
    type='unet', channels=32, channel_multiples=(1, 1), num_res_blocks=1, attention_sizes=(4,), head_size=32
  ),
)
SR_16 = dict(
  size=16,
  low_res_size=8,
  channels=CHANNELS,
  prediction='x0',
  network=dict(quickstart.BASE['network'], text_attention=(False, True)),
)
SR_32 = quickstart.SR

BASE_SAMPLER = sampler(32)
SR_16_SAMPLER = sampler(16)
SR_32_SAMPLER = sampler(8, sampler='ddim')

VIT = dict(type='vit', num_classes=NUM_CLASSES, patch_size=8, width=48, depth=2, num_heads=3)


RESNET_RECIPE = recipe(1e-2, 0.05, num_steps=400, batch_size=64)
VIT_RECIPE = recipe(4e-3, 0.5, num_steps=800, batch_size=32)


def classify(model, model_recipe, **mixtures):
  return dict(
    job='classify',
    model=model,
    recipe=model_recipe,
    size=32,
    mixtures=mixtures,
    real=digits('train'),
    test=digits('test'),
    seeds=SEEDS,
  )


MEASURED = dict(text='embed_classes', extractor='classify_real', batch_size=100)
REFERENCES = dict(train=digits('train'), validation=digits('validation'))
# the base as later jobs draw it
BASE_USE = dict(weights='select_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance')


def synthetic(multiple, samples='generate', real=False):
  return dict(real=real, synthetic=samples, synthetic_num=multiple * NUM_REAL)


def embedding():
  """Prompts through the frozen encoder."""
  jobs = {}
  jobs['embed_captions'] = dict(
    job='embed', dataset=GLYPHS, prompts='captions', encoder=ENCODER, max_length=32
  )
  jobs['embed_classes'] = dict(
    job='embed', dataset=digits('train'), prompts='classes', encoder=ENCODER, max_length=32
  )
  return jobs


def training_of_stages():
  """The text-to-image cascade, and its fine-tuning on class names."""
  jobs = {}
  jobs['pretrain_base'] = training(
    'pretrain', 'embed_captions', GLYPHS, 'adam', 3e-3, 600, BASE_SAMPLER, 64, stage=BASE
  )
  jobs['pretrain_sr16'] = training(
    'pretrain', 'embed_captions', GLYPHS, 'adam', 3e-3, 500, SR_16_SAMPLER, 64, stage=SR_16
  )
  jobs['pretrain_sr32'] = training(
    'pretrain', 'embed_captions', GLYPHS, 'adam', 3e-3, 280, SR_32_SAMPLER, 64, stage=SR_32
  )
  jobs['finetune_base'] = training(
    'finetune',
    'embed_classes',
    digits('train'),
    'adafactor',
    2e-3,
    1000,
    BASE_SAMPLER,
    64,
    init='pretrain_base',
  )
  jobs['finetune_sr16'] = training(
    'finetune', 'embed_classes', digits('train'), 'adam', 5e-4, 300, SR_16_SAMPLER, 64, init='pretrain_sr16'
  )
  return jobs


def choice_of_checkpoints_and_settings():
  """The extractor; the best checkpoint of a stage and its best sampler settings, base first."""
  jobs = {}
  jobs['classify_real'] = classify(RESNET, RESNET_RECIPE, real=dict(real=True))
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    sampler=BASE_SAMPLER,
    reference=digits('validation'),
    per_class=60,
    **MEASURED,
  )
  cas_8 = dict(
    model=RESNET_8, recipe=recipe(1e-2, 0.05, 250, 64, crop_padding=0), test=digits('validation'), seeds=SEEDS
  )
  cas_16 = dict(
    model=RESNET_16, recipe=recipe(1e-2, 0.05, 300, 64, crop_padding=1), test=digits('validation'), seeds=(0,)
  )
  jobs['sweep_base'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=BASE_SAMPLER)],
    references=REFERENCES,
    grid=dict(guidance=(1.0, 1.25, 2.0, 5.0), logvar=(0.0, 0.3, 1.0)),
    per_class=30,
    choose='fid_validation',
    **MEASURED,
  )
  jobs['sweep_guidance'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=BASE_SAMPLER, tuned_by='sweep_base')],
    grid=dict(guidance=(1.0, 1.25, 1.5, 2.0, 5.0)),
    per_class=60,
    choose='cas',
    cas=cas_8,
    references=REFERENCES,
    **MEASURED,
  )
  jobs['select_sr16'] = dict(
    job='select',
    weights='finetune_sr16',
    sampler=SR_16_SAMPLER,
    below=[BASE_USE],
    reference=digits('validation'),
    per_class=60,
    **MEASURED,
  )
  jobs['sweep_sr16'] = dict(
    job='sweep',
    stages=[BASE_USE, dict(weights='select_sr16', sampler=SR_16_SAMPLER)],
    grid=dict(noise_augmentation=(0.0, 0.1, 0.3), logvar=(0.1, 0.3)),
    per_class=30,
    choose='cas',
    cas=cas_16,
    references=REFERENCES,
    **MEASURED,
  )
  return jobs


def data_sets():
  """What is generated, and how good it is."""
  jobs = {}
  sr_32 = dict(weights='pretrain_sr32', sampler=SR_32_SAMPLER)
  shards = dict(text='embed_classes', dataset=digits('train'), shard_size=200, batch_size=100)
  jobs['generate'] = dict(
    job='generate',
    per_class=240,
    stages=[BASE_USE, dict(weights='select_sr16', sampler=SR_16_SAMPLER, tuned_by='sweep_sr16'), sr_32],
    **shards,
  )
  jobs['generate_not_finetuned'] = dict(
    job='generate',
    per_class=60,
    stages=[
      dict(weights='pretrain_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance'),
      dict(weights='pretrain_sr16', sampler=SR_16_SAMPLER, tuned_by='sweep_sr16'),
      sr_32,
    ],
    **shards,
  )
  for samples in ('generate', 'generate_not_finetuned'):
    jobs[samples.replace('generate', 'evaluate')] = dict(
      job='evaluate', samples=samples, sizes=SIZES, extractor='classify_real', references=REFERENCES
    )
  return jobs


def studies():
  """What the data sets are worth to classifiers."""
  jobs = {}
  jobs['classify_resnet'] = classify(
    RESNET, RESNET_RECIPE, synthetic=synthetic(1), both=synthetic(1, real=True)
  )
  jobs['classify_vit'] = classify(
    VIT, VIT_RECIPE, real=dict(real=True), synthetic=synthetic(1), both=synthetic(1, real=True)
  )
  jobs['classify_scaling'] = classify(
    RESNET, RESNET_RECIPE, **{f'both_{n}x': synthetic(n, real=True) for n in (2, 4)}
  )
  jobs['classify_not_finetuned'] = classify(
    RESNET, RESNET_RECIPE, synthetic=synthetic(1, 'generate_not_finetuned')
  )
  return jobs


def get_config():
  jobs = embedding() | training_of_stages() | choice_of_checkpoints_and_settings() | data_sets() | studies()
  jobs['report'] = dict(job='report', title='The protocol in miniature: digits', jobs=tuple(jobs))
  return jobs_config(jobs)
