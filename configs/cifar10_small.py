"""CIFAR-10 with a cascade small enough for a CPU: 16x16 -> 32x32, in colour.

    python -m imagenet_synth.main --config configs/cifar10_small.py

Images are read from data/cifar10/train/CLASS/*.jpg and data/cifar10/test/CLASS/*.jpg. The encoder has random
weights, as in quickstart.py, from which this differs in data and sizes alone; there is no captioned corpus
here, so that the cascade is first trained on the same images with longer prompts.

Training the cascade takes half an hour on two CPU cores that are shared. To expect: a ResNet trained on the
2,000 images gets 40.6 % of the test images right, one trained on 45,000 real ones 62.5 (docs/results.md).
"""

from configs import quickstart
from imagenet_synth.core.config import jobs_config

DIRECTORY = 'data/cifar10'


def images(split):
  return dict(name='folder', directory=DIRECTORY, split=split)


TRAIN, VALIDATION, TEST = images('train[:90%]'), images('train[90%:]'), images('test')
PREVIEW = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
LONG = 'a small photo of a {}'
LONG_PREVIEW = tuple(LONG.format(name) for name in PREVIEW)

BASE = dict(
  size=16,
  channels=3,
  prediction='v',
  network=dict(
    type='unet', channels=32, channel_multiples=(1, 2), num_res_blocks=1, attention_sizes=(8,), head_size=32
  ),
)
SR_32 = dict(
  size=32,
  low_res_size=16,
  channels=3,
  prediction='x0',
  network=dict(quickstart.BASE['network'], text_attention=(False, True)),
)
BASE_SAMPLER = quickstart.sampler(64, guidance=1.5)
SR_SAMPLER = quickstart.sampler(16)
# fewer steps than in the previews: a thousand images in minutes
FAST_SAMPLER = quickstart.sampler(32, guidance=1.5)
RESNET = dict(quickstart.RESNET, width=16, stage_sizes=(1, 1, 1), stem_stride=1)
RECIPE = dict(quickstart.recipe(1e-2, 0.05, num_steps=1500, batch_size=64, crop_padding=4), flip=True)

REFERENCES = dict(train=TRAIN, validation=VALIDATION)
MEASURED = dict(text='embed_classes', extractor='classify_real', batch_size=100)
CLASSIFY = dict(job='classify', model=RESNET, recipe=RECIPE, size=32, real=TRAIN, test=TEST, seeds=(0, 1))
# shorter than RECIPE: trials are many
SHORT = dict(quickstart.recipe(1e-2, 0.05, num_steps=600, batch_size=64, crop_padding=2), flip=True)
CAS = dict(model=RESNET, recipe=SHORT, test=VALIDATION, seeds=(0, 1, 2))
# the base as later jobs draw it
BASE_USE = dict(weights='select_base', sampler=FAST_SAMPLER, tuned_by='sweep_guidance')


def training(job, text, optimizer, num_steps, preview_sampler, prompts=PREVIEW, **more):
  section = quickstart.training(job, text, TRAIN, optimizer, 2e-3, num_steps, preview_sampler, 64, **more)
  section['preview'].update(prompts=prompts)
  return section


def base():
  """The base, and its checkpoint and guidance by validation photos."""
  jobs = {}
  embed = dict(job='embed', dataset=TRAIN, prompts='classes', encoder=quickstart.ENCODER, max_length=32)
  jobs['embed_long'] = dict(embed, template=LONG)
  jobs['embed_classes'] = embed
  jobs['pretrain_base'] = training(
    'pretrain', 'embed_long', 'adam', 3000, BASE_SAMPLER, LONG_PREVIEW, stage=BASE
  )
  jobs['finetune_base'] = training(
    'finetune', 'embed_classes', 'adafactor', 800, BASE_SAMPLER, init='pretrain_base'
  )
  jobs['classify_real'] = dict(CLASSIFY, mixtures=dict(real=dict(real=True)))
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    sampler=FAST_SAMPLER,
    reference=VALIDATION,
    per_class=20,
    **MEASURED,
  )
  jobs['sweep_base'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=FAST_SAMPLER)],
    per_class=30,
    grid=dict(guidance=(1.0, 1.25, 1.5, 2.0, 3.0, 5.0), logvar=(0.0, 0.3, 1.0)),
    choose='fid_validation',
    references=REFERENCES,
    **MEASURED,
  )
  jobs['sweep_guidance'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=FAST_SAMPLER, tuned_by='sweep_base')],
    grid=dict(guidance=(1.0, 1.25, 1.5, 2.0, 3.0, 5.0)),
    per_class=60,
    choose='cas',
    cas=CAS,
    references=REFERENCES,
    **MEASURED,
  )
  return jobs


def super_resolution():
  """The stage 16 -> 32, and its settings by validation photos."""
  jobs = {}
  jobs['pretrain_sr32'] = training(
    'pretrain', 'embed_long', 'adam', 600, SR_SAMPLER, LONG_PREVIEW, stage=SR_32
  )
  jobs['finetune_sr32'] = training('finetune', 'embed_classes', 'adam', 200, SR_SAMPLER, init='pretrain_sr32')
  jobs['sweep_sr32'] = dict(
    job='sweep',
    stages=[BASE_USE, dict(weights='finetune_sr32', sampler=SR_SAMPLER)],
    grid=dict(noise_augmentation=(0.0, 0.1, 0.3), logvar=(0.1, 0.3)),
    per_class=60,
    choose='cas',
    cas=dict(CAS, seeds=(0, 1)),
    references=REFERENCES,
    **MEASURED,
  )
  return jobs


def data_set():
  """The images, how good they are, and what they are worth."""
  jobs = {}
  jobs['generate'] = dict(
    job='generate',
    text='embed_classes',
    dataset=TRAIN,
    per_class=200,
    shard_size=200,
    batch_size=200,
    stages=[BASE_USE, dict(weights='finetune_sr32', sampler=SR_SAMPLER, tuned_by='sweep_sr32')],
  )
  jobs['evaluate'] = dict(
    job='evaluate', samples='generate', sizes=(16, 32), extractor='classify_real', references=REFERENCES
  )
  jobs['classify_synthetic'] = dict(CLASSIFY, mixtures=dict(synthetic=dict(real=False, synthetic='generate')))
  return jobs


def get_config():
  jobs = base() | super_resolution() | data_set()
  jobs['report'] = dict(job='report', title='A small cascade on CIFAR-10', jobs=tuple(jobs))
  return jobs_config(jobs)
