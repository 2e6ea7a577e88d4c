"""What synthetic images are worth beside few labelled ones, on digits and a laptop CPU.

    python -m imagenet_synth.main --config configs/quickstart.py --workdir runs/quickstart

The paper's protocol at 1/4 of its scale: a 16x16 base and a stage 16->32. The cascade is trained on
`mnist5k_web`, 2,800 carelessly captioned digits, as Imagen was on the web; a classifier has 10 or 50
labelled ones of each class, of another domain (`mnist5k`), as ImageNet is. It is trained on these, on
synthetic ones or both, and, as controls without a generator, with stronger augmentation and on the corpus
itself by the digits that its captions name. Most classifiers see 8x8 pixels: from larger ones they learn
digits so fast that little is left to gain, as `classify_ten_at_32` shows.

6 to 8 minutes on two CPU cores. To expect, of 1,300 test images at 8x8: 78.7 % with 10 real images of each
class; 85.9 with 2,000 synthetic ones beside them, 7.3 points more (5.8 to 8.7), see docs/results.md.
"""

from imagenet_synth.core.config import jobs_config

CHANNELS = 1
NUM_CLASSES = 10
# of the classifiers that are reported, and of those by which settings are chosen
SEEDS, FEW_SEEDS = (0, 1, 2, 3, 4), (0, 1)
NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
ENCODER = dict(random=dict(vocab_size=384, width=64, num_layers=2, num_heads=4, head_size=16, mlp_size=128))

WEB = dict(name='mnist5k_web', split='train')


def mnist(split, **more):
  return dict(name='mnist5k', split=split, **more)


# the labelled images that the generator sees, too
TEN = mnist('train', per_class=10)
FIFTY = mnist('train')
VALIDATION = mnist('validation')
# the corpus by the digits that its captions name: a tenth of them are wrong
NAMED_WEB = mnist('web_named')


def sampler(num_steps, **settings):
  return dict(num_steps=num_steps, thresholding='static', **settings)


# Imagen predicts eps; what is trained for minutes instead of days does better without an estimate of x_0
# that is amplified at high noise. An Efficient U-Net as the base, too: its blocks are at half the size
BASE = dict(
  size=16,
  channels=CHANNELS,
  prediction='v',
  network=dict(
    type='efficient_unet',
    channels=(32, 64),
    num_res_blocks=(1, 1),
    self_attention=(False, True),
    text_attention=(True, True),
    num_heads=2,
  ),
)
SR = dict(
  size=32,
  low_res_size=16,
  channels=CHANNELS,
  prediction='x0',
  schedule=dict(kind='linear'),
  network=dict(
    type='efficient_unet',
    channels=(16, 32),
    num_res_blocks=(1, 1),
    self_attention=(False, False),
    text_attention=(False, True),
    num_heads=2,
  ),
)
PREVIEW_SAMPLER = sampler(16)
# as good as 16 steps of DDPM at a third of the evaluations: docs/results.md
BASE_SAMPLER = sampler(6, sampler='dpmpp_2m', spacing='logsnr')
SR_SAMPLER = sampler(4, sampler='ddim')

RESNET = dict(
  type='resnet',
  num_classes=NUM_CLASSES,
  block='basic',
  width=8,
  stage_sizes=(1, 1, 1),
  stem='small',
  stem_stride=2,
)
# the same for smaller images
RESNET_8 = dict(RESNET, width=16, stage_sizes=(1, 1), stem_stride=1)
RESNET_16 = dict(RESNET, stem_stride=1)


def recipe(learning_rate, weight_decay, num_steps, batch_size, crop_padding=2):
  return dict(
    optimizer=dict(
      name='adamw',
      learning_rate=learning_rate,
      schedule='cosine',
      warmup_steps=num_steps // 10,
      weight_decay=weight_decay,
    ),
    num_steps=num_steps,
    batch_size=batch_size,
    crop_padding=crop_padding,
    label_smoothing=0.1,
    # so small a network is faster on one
    devices=1,
  )


RECIPE_8, RECIPE_16, RECIPE_32 = (recipe(1e-2, 0.05, 150, 64, crop_padding=shift) for shift in (0, 1, 2))
# for more real images, so that half of each batch being others does not mean that they are learned half
LONGER = recipe(1e-2, 0.05, 300, 64, crop_padding=0)
# what can be had without a generator: of shifts, Mixup, CutMix, erasing and RandAugment this was best on
# validation images
AUGMENTED = dict(RECIPE_8, randaugment=dict(num_layers=1, magnitude=5))


def training(job, text, dataset, optimizer, learning_rate, num_steps, preview_sampler, batch_size, **more):
  return dict(
    job=job,
    text=text,
    dataset=dataset,
    optimizer=dict(
      name=optimizer,
      learning_rate=learning_rate,
      schedule='cosine',
      warmup_steps=50,
      scale_by_parameter=False,
    ),
    num_steps=num_steps,
    batch_size=batch_size,
    checkpoint_every=num_steps // 4,
    ema_decay=0.99,
    preview=dict(prompts=NAMES, columns=10, sampler=preview_sampler),
    **more,
  )


def finetuning(init, optimizer, num_steps, preview_sampler, batch_size):
  """Gently: an eighth of each batch is labelled images; more of these make the images of a class alike."""
  blend = [dict(text='embed_captions', dataset=WEB, share=7 / 8)]
  section = training(
    'finetune',
    'embed_classes',
    TEN,
    optimizer,
    3e-4,
    num_steps,
    preview_sampler,
    batch_size,
    init=init,
    blend=blend,
  )
  return dict(section, checkpoint_every=num_steps)


def classify(title, real, mixtures, model=RESNET_8, model_recipe=RECIPE_8, size=8, seeds=SEEDS, **more):
  return dict(
    job='classify',
    title=title,
    model=model,
    recipe=model_recipe,
    size=size,
    mixtures=mixtures,
    real=real,
    test=mnist('test'),
    seeds=seeds,
    **more,
  )


REAL = dict(real=True)


def synthetic(num=None, samples='generate', **more):
  return dict(real=False, synthetic=samples, synthetic_num=num, **more)


def both(num=None, samples='generate'):
  return synthetic(num, samples, synthetic_share=0.5) | REAL


TEN_TITLE = 'ResNet, 10 a class'
CORPUS = dict(real=True, stand_in=NAMED_WEB, synthetic_share=0.5)

MEASURED = dict(text='embed_classes', extractor='classify_real', batch_size=100, per_class=30)
REFERENCES = dict(train=FIFTY, validation=VALIDATION)
CAS = dict(model=RESNET_16, recipe=RECIPE_16, test=VALIDATION, seeds=FEW_SEEDS)
# the base as later jobs draw it
BASE_USE = dict(weights='select_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance')


def embedding():
  """Prompts through the frozen encoder."""
  jobs = {}
  jobs['embed_captions'] = dict(job='embed', dataset=WEB, prompts='captions', encoder=ENCODER, max_length=32)
  jobs['embed_classes'] = dict(job='embed', dataset=FIFTY, prompts='classes', encoder=ENCODER, max_length=32)
  return jobs


def training_of_stages():
  """The text-to-image cascade, and its fine-tuning on class names."""
  jobs = {}
  of_captions = ('pretrain', 'embed_captions', WEB, 'adam', 3e-3)
  jobs['pretrain_base'] = training(*of_captions, 1600, PREVIEW_SAMPLER, 64, stage=BASE)
  jobs['pretrain_sr32'] = training(*of_captions, 300, SR_SAMPLER, 32, stage=SR)
  jobs['finetune_base'] = finetuning('pretrain_base', 'adafactor', 100, PREVIEW_SAMPLER, 64)
  jobs['finetune_sr32'] = finetuning('pretrain_sr32', 'adam', 100, SR_SAMPLER, 32)
  return jobs


def choice_of_checkpoints_and_settings():
  """The extractor; the best checkpoint of the base and its best guidance, on validation images."""
  jobs = {}
  jobs['classify_real'] = classify(
    'ResNet, 50 a class', FIFTY, dict(real=REAL), RESNET, RECIPE_32, 32, seeds=(0,)
  )
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    others=('pretrain_base',),
    sampler=dict(BASE_SAMPLER, guidance=1.5),
    reference=VALIDATION,
    **MEASURED,
  )
  jobs['sweep_guidance'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=BASE_SAMPLER)],
    grid=dict(guidance=(1.0, 2.0, 4.0, 8.0)),
    choose='cas',
    cas=CAS,
    references=REFERENCES,
    **MEASURED,
  )
  return jobs


def data_sets():
  """What is generated, and how good it is."""
  jobs = {}
  sr_32 = dict(weights='finetune_sr32', sampler=SR_SAMPLER)
  shards = dict(text='embed_classes', dataset=FIFTY, shard_size=500, batch_size=250)
  jobs['generate'] = dict(job='generate', per_class=200, stages=[BASE_USE, sr_32], **shards)
  jobs['generate_not_finetuned'] = dict(
    job='generate',
    per_class=100,
    stages=[dict(weights='pretrain_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance')],
    **shards,
  )
  jobs['evaluate'] = dict(
    job='evaluate', samples='generate', sizes=(16, 32), extractor='classify_real', references=REFERENCES
  )
  return jobs


def studies():
  """What the data sets are worth to classifiers."""
  jobs = {}
  jobs['classify_ten'] = classify(
    TEN_TITLE,
    TEN,
    dict(
      real=REAL,
      synthetic=synthetic(),
      **{f'both_{num}': both(num) for num in (100, 500, 2000)},
      corpus=CORPUS,
    ),
  )
  jobs['classify_ten_augmented'] = classify(
    f'{TEN_TITLE}, stronger augmentation', TEN, dict(real=REAL, both=both()), model_recipe=AUGMENTED
  )
  jobs['classify_fifty'] = classify(
    'ResNet, 50 a class', FIFTY, dict(real=REAL, both=both(), corpus=CORPUS), model_recipe=LONGER
  )
  jobs['score'] = dict(
    job='score', samples='generate', extractor='classify_fifty', real=FIFTY, size=16, batch_size=500
  )
  # ten images of each class, others with each seed, most of which the generator has not seen
  jobs['classify_not_finetuned'] = classify(
    'ResNet, 10 others a class',
    FIFTY,
    dict(real=REAL, both=both(samples='generate_not_finetuned')),
    real_per_class=10,
  )
  mixtures = dict(real=REAL, synthetic=synthetic(), both=both())
  jobs['classify_ten_at_32'] = classify(TEN_TITLE, TEN, mixtures, RESNET, RECIPE_32, 32)
  return jobs


def get_config():
  jobs = embedding() | training_of_stages() | choice_of_checkpoints_and_settings() | data_sets() | studies()
  jobs['report'] = dict(job='report', title='The protocol in miniature: handwritten digits', jobs=tuple(jobs))
  return jobs_config(jobs)
