"""The paper's protocol at its size: ImageNet, 64x64 -> 256x256 -> 1024x1024.

    python -m imagenet_synth.main --config configs/imagenet.py --dry_run --cpu_devices 256
    python -m imagenet_synth.main --config configs/imagenet.py:finetune_base

The whole pipeline; or one job of it, named behind a colon, in the same workdir. Settings are the
paper's (Azizi et al., 2023) and Imagen's (Saharia et al., 2022, appendix F) where these say them; what
they do not say is marked "ours".

The paper chooses checkpoints and settings by the validation images, on which it tests classifiers, too. Here
they are chosen by a hundredth of the training images (12,811), on which the cascade is not trained.
Classifiers are trained on all training images and tested on the validation images, as the paper's are.

By estimate it takes 147,500 hours of a TPU v4, 96 days of 64 (docs/cost.md); no such machine has run it. To
expect is what the paper has: FID 1.21 at 64x64, and a CAS of 64.96 % at 256x256, of 69.24 at 1024x1024.

Imagen's weights were never published. Here `pretrain_*` trains the same networks from random weights
on ImageNet itself; to start from a public text-to-image model, see deepfloyd.py.
"""

from configs import models, recipes
from imagenet_synth.core.config import jobs_config

T5_XXL = dict(
  weights='weights/t5_1_1_xxl/checkpoint_1000000',
  size='t5_v1_1_xxl',
  dtype='bfloat16',
  vocabulary='weights/t5_1_1_xxl/sentencepiece.model',
)
INCEPTION = 'weights/inception-2015-12-05.safetensors'
PREVIEW = ('goldfish', 'flamingo', 'golden retriever', 'teapot')


def imagenet(split):
  return dict(name='imagenet2012', split=split, directory='data/tensorflow_datasets')


# what the cascade is trained on, and what all choices are made by; ours
TRAIN, HELD_OUT = imagenet('train[:99%]'), imagenet('train[99%:]')

# F.1
BASE = dict(
  size=64,
  channels=3,
  network=dict(
    type='unet',
    channels=512,
    channel_multiples=(1, 2, 3, 4),
    num_res_blocks=3,
    attention_sizes=(32, 16, 8),
    head_size=64,
    dtype='bfloat16',
    remat=True,
  ),
)
# F.2
SR_256 = dict(
  size=256,
  low_res_size=64,
  channels=3,
  network=dict(
    type='efficient_unet',
    channels=(128, 256, 512, 1024),
    num_res_blocks=(2, 4, 8, 8),
    self_attention=(False, False, False, True),
    text_attention=(False, False, False, True),
    num_heads=8,
    dtype='bfloat16',
    remat=True,
  ),
)
# F.3
SR_1024 = dict(
  size=1024,
  low_res_size=256,
  channels=3,
  schedule=dict(kind='linear'),
  network=dict(SR_256['network'], self_attention=(False,) * 4),
)

# the paper's final sampling settings
BASE_SAMPLER = dict(sampler='ddpm', num_steps=1000, guidance=1.25, logvar=0.0)
SR_256_SAMPLER = dict(sampler='ddpm', num_steps=1000, guidance=1.0, logvar=0.1)
SR_1024_SAMPLER = dict(sampler='ddim', num_steps=32, guidance=1.0)
# Imagen's, with which checkpoints are compared; the number of steps is ours
DEFAULT_SAMPLER = dict(sampler='ddpm', num_steps=256)


def training(job, size, optimizer, num_steps, batch_size, sampler, checkpoint_every, **more):
  """Learning rate: Imagen's; the papers do not say the one of fine-tuning.

  Images that are smaller than the stage's are left out, which is ours: enlarged ones would teach it to blur.
  """
  return dict(
    job=job,
    text='embed',
    dataset=dict(TRAIN, min_side=size),
    optimizer=dict(name=optimizer, learning_rate=1e-4, schedule='cosine', warmup_steps=10_000),
    num_steps=num_steps,
    batch_size=batch_size,
    checkpoint_every=checkpoint_every,
    cache=False,
    ema_decay=0.9999,
    text_dropout=0.1,
    # half of the disk; it changes an answer of the networks as much as their computing in it does
    snapshot_dtype='bfloat16',
    preview=dict(prompts=PREVIEW, columns=4, sampler=sampler),
    **more,
  )


MEASURED = dict(text='embed', extractor='inception')
CAS = dict(model=models.RESNET_50, recipe=recipes.CAS, test=HELD_OUT, seeds=(0,))
REFERENCES = dict(train=TRAIN, validation=HELD_OUT)
# the base as later jobs draw it
BASE_USE = dict(weights='select_base', sampler=BASE_SAMPLER, tuned_by='sweep_base_steps')
SR_256_USE = dict(weights='select_sr256', sampler=SR_256_SAMPLER)

# The paper's grids in all combinations would be 11.7M images of the base with 1.8e10 evaluations of its
# network, 7 times those of the data set, and 1.5M of the first SR stage with 1.5e9. Here the other settings
# are swept with few steps and the number of steps comes after them; and halving weeds out trials on few
# samples. That is at most 3.4M images with 1.2e9 evaluations, and 1.4M with 3.9e8. All of it is ours.
FEW_STEPS, NUMS_STEPS = 128, (128, 500, 1000)


def training_of_stages():
  """Prompts, the text-to-image cascade, and its fine-tuning on class names."""
  jobs = {}
  # prompts are class names alone; their length in tokens is ours
  jobs['embed'] = dict(
    job='embed', dataset=imagenet('train'), prompts='classes', encoder=T5_XXL, max_length=16, batch_size=64
  )
  jobs['pretrain_base'] = training(
    'pretrain', 64, 'adafactor', 2_500_000, 2048, DEFAULT_SAMPLER, 100_000, stage=BASE, fsdp=8
  )
  jobs['pretrain_sr256'] = training(
    'pretrain', 256, 'adam', 2_500_000, 2048, SR_256_SAMPLER, 100_000, stage=SR_256, fsdp=4
  )
  jobs['pretrain_sr1024'] = training(
    'pretrain', 1024, 'adam', 2_500_000, 2048, SR_1024_SAMPLER, 100_000, stage=SR_1024, fsdp=4, crop=256
  )
  jobs['finetune_base'] = training(
    'finetune', 64, 'adafactor', 210_000, 2048, DEFAULT_SAMPLER, 10_000, init='pretrain_base', fsdp=8
  )
  jobs['finetune_sr256'] = training(
    'finetune', 256, 'adam', 490_000, 2048, SR_256_SAMPLER, 35_000, init='pretrain_sr256', fsdp=4
  )
  return jobs


def choice_of_checkpoints_and_settings():
  """The extractor; the best checkpoint of a stage and its best sampler settings, base first."""
  jobs = {}
  jobs['inception'] = dict(job='import_extractor', network='inception', path=INCEPTION)
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    sampler=DEFAULT_SAMPLER,
    per_class=10,
    reference=HELD_OUT,
    **MEASURED,
  )
  jobs['sweep_base'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=dict(BASE_SAMPLER, num_steps=FEW_STEPS))],
    per_class=50,
    grid=dict(guidance=(1.0, 1.25, 1.5, 1.75, 2.0, 5.0), logvar=(0.0, 0.2, 0.3, 0.4, 1.0)),
    halving=dict(per_class=(5, 20), keep=1 / 3),
    references=REFERENCES,
    choose='fid_validation',
    **MEASURED,
  )
  jobs['sweep_guidance'] = dict(
    job='sweep',
    stages=[dict(jobs['sweep_base']['stages'][0], tuned_by='sweep_base')],
    per_class=1200,
    grid=dict(guidance=(1.0, 1.25, 1.5, 1.75, 2.0, 5.0)),
    halving=dict(per_class=(100,), keep=1 / 3),
    references=REFERENCES,
    choose='cas',
    cas=CAS,
    **MEASURED,
  )
  jobs['sweep_base_steps'] = dict(
    jobs['sweep_base'],
    stages=[dict(BASE_USE, tuned_by='sweep_guidance')],
    grid=dict(logvar=(0.0, 0.2, 0.3, 0.4, 1.0), num_steps=NUMS_STEPS),
  )
  jobs['select_sr256'] = dict(
    job='select',
    weights='finetune_sr256',
    sampler=SR_256_SAMPLER,
    below=[BASE_USE],
    per_class=10,
    reference=HELD_OUT,
    **MEASURED,
  )
  jobs['sweep_sr256_guidance'] = dict(
    job='sweep',
    stages=[BASE_USE, dict(SR_256_USE, sampler=dict(SR_256_SAMPLER, num_steps=FEW_STEPS))],
    per_class=10,
    grid=dict(
      guidance=(1.0, 2.0, 5.0, 10.0, 30.0), noise_augmentation=(0.0, 0.1, 0.2, 0.3, 0.4), logvar=(0.1, 0.3)
    ),
    halving=dict(per_class=(2, 5), keep=1 / 3),
    references=REFERENCES,
    choose='fid_train',
    **MEASURED,
  )
  # the paper's Figure 4; of 100 images a class, CAS is lower than of all, and there is no halving
  jobs['sweep_sr256'] = dict(
    job='sweep',
    stages=[BASE_USE, dict(jobs['sweep_sr256_guidance']['stages'][1], tuned_by='sweep_sr256_guidance')],
    per_class=100,
    grid=dict(noise_augmentation=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), logvar=(0.1, 0.3)),
    references=REFERENCES,
    choose='cas',
    cas=dict(CAS, size=224),
    **MEASURED,
  )
  jobs['sweep_sr256_steps'] = dict(
    jobs['sweep_sr256_guidance'],
    stages=[BASE_USE, dict(SR_256_USE, tuned_by='sweep_sr256')],
    grid=dict(logvar=(0.1, 0.3), num_steps=NUMS_STEPS),
  )
  return jobs


def data_sets():
  """What is generated, and how good it is."""
  jobs = {}
  jobs['generate'] = dict(
    job='generate',
    text='embed',
    dataset=imagenet('train'),
    times_real=1,
    shard_size=1000,
    # of 1024x1024, 0.7 TB instead of 2.1: on two photos, 4.4 bits a pixel and 12.4 of PNG
    jpeg_sizes=(1024,),
    stages=[
      BASE_USE,
      dict(SR_256_USE, tuned_by='sweep_sr256_steps'),
      dict(weights='pretrain_sr1024', sampler=SR_1024_SAMPLER),
    ],
  )
  # these figures choose nothing
  jobs['evaluate'] = dict(
    job='evaluate',
    samples='generate',
    sizes=(64, 256),
    extractor='inception',
    references=dict(train=TRAIN, validation=imagenet('validation')),
  )
  return jobs


def all_jobs():
  """Name -> section, in order."""
  return training_of_stages() | choice_of_checkpoints_and_settings() | data_sets()


def config_of(jobs, name=None):
  """The config that runs all jobs, or only the one that is named: what it reads is in the workdir then."""
  if name is None:
    return jobs_config(jobs)
  if name not in jobs:
    raise ValueError(f'there is no job {name!r}; known: {", ".join(jobs)}')
  return jobs_config(jobs, only=(name,))


def get_config(job=None):
  return config_of(all_jobs(), job)
