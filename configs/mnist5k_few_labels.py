"""What synthetic images are worth beside few labelled ones, on digits and a laptop CPU.

    python -m imagenet_synth.main --config configs/mnist5k_few_labels.py --workdir runs/mnist5k_few_labels

The generator is trained on `mnist5k_web`, 2,800 carelessly captioned digits; a classifier has 10 or 50
labelled ones of each class, of another domain (`mnist5k`). It is trained on these, on synthetic ones or both,
and, as controls without a generator, with stronger augmentation and on the corpus itself by the digits
that its captions name. Classifiers see 8x8 pixels, where the base draws; two jobs show what is left at 16x16
and 32x32.
"""

from configs.quickstart import (
  BASE,
  ENCODER,
  RESNET,
  RESNET_8,
  RESNET_16,
  SIZES,
  SR_16,
  SR_32,
  recipe,
  sampler,
  training,
)
from imagenet_synth.core.config import jobs_config

# of the classifiers that are reported, and of those by which settings are chosen
SEEDS, FEW_SEEDS = (0, 1, 2, 3, 4), (0, 1)
WEB = dict(name='mnist5k_web', split='train')


def mnist(split, **more):
  return dict(name='mnist5k', split=split, **more)


# the labelled images that the generator sees, too
TEN = mnist('train', per_class=10)
FIFTY = mnist('train')


BASE_SAMPLER = sampler(24)
SR_16_SAMPLER = sampler(8)
SR_32_SAMPLER = sampler(4, sampler='ddim')


def recipe_of(crop_padding):
  return recipe(1e-2, 0.05, num_steps=200, batch_size=64, crop_padding=crop_padding)


RECIPE_8, RECIPE_16, RECIPE_32 = recipe_of(0), recipe_of(1), recipe_of(2)
# what can be had without a generator: stronger augmentation
AUGMENTED = dict(recipe_of(1), erasing=0.25, mixup_alpha=0.2)


def pretraining(num_steps, batch_size, preview_sampler, stage):
  job = training('pretrain', 'embed_captions', WEB, 'adam', 3e-3, num_steps, preview_sampler, stage=stage)
  return dict(job, batch_size=batch_size)


def finetuning(init, optimizer, num_steps, batch_size, preview_sampler):
  """Gently: an eighth of each batch is labelled images; more of these make the images of a class alike."""
  blend = [dict(text='embed_captions', dataset=WEB, share=7 / 8)]
  job = training(
    'finetune', 'embed_classes', TEN, optimizer, 3e-4, num_steps, preview_sampler, init=init, blend=blend
  )
  return dict(job, batch_size=batch_size, checkpoint_every=num_steps)


def classify(real, mixtures, model=RESNET_8, model_recipe=RECIPE_8, size=8, seeds=SEEDS, **more):
  return dict(
    job='classify',
    model=model,
    recipe=model_recipe,
    size=size,
    mixtures=mixtures,
    real=real,
    test=mnist('test'),
    seeds=seeds,
    **more,
  )


MEASURED = dict(text='embed_classes', extractor='classify_real', batch_size=100)
REFERENCES = dict(train=FIFTY, validation=mnist('validation'))
CAS_8 = dict(model=RESNET_8, recipe=RECIPE_8, test=mnist('validation'), seeds=FEW_SEEDS)
# the base as later jobs draw it
BASE_USE = dict(weights='select_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance')

REAL = dict(real=True)


def synthetic(num=None, samples='generate', **more):
  return dict(real=False, synthetic=samples, synthetic_num=num, **more)


def both(num, samples='generate', **more):
  return dict(synthetic(num, samples, **more), real=True, synthetic_share=0.5)


# the corpus itself, by the digits that its captions name: a tenth of them are wrong
CORPUS = dict(real=True, stand_in=mnist('web_named'), synthetic_share=0.5)


def embedding():
  """Prompts through the frozen encoder."""
  jobs = {}
  jobs['embed_captions'] = dict(job='embed', dataset=WEB, prompts='captions', encoder=ENCODER, max_length=32)
  jobs['embed_classes'] = dict(job='embed', dataset=FIFTY, prompts='classes', encoder=ENCODER, max_length=32)
  return jobs


def training_of_stages():
  """The text-to-image cascade, and its fine-tuning on class names."""
  jobs = {}
  jobs['pretrain_base'] = pretraining(1800, 64, BASE_SAMPLER, BASE)
  jobs['pretrain_sr16'] = pretraining(400, 32, SR_16_SAMPLER, SR_16)
  jobs['pretrain_sr32'] = pretraining(240, 32, SR_32_SAMPLER, SR_32)
  jobs['finetune_base'] = finetuning('pretrain_base', 'adafactor', 200, 64, BASE_SAMPLER)
  jobs['finetune_sr16'] = finetuning('pretrain_sr16', 'adam', 100, 32, SR_16_SAMPLER)
  return jobs


def choice_of_checkpoints_and_settings():
  """The extractor; the best checkpoint of a stage and its best sampler settings, on validation images."""
  jobs = {}
  jobs['classify_real'] = classify(FIFTY, dict(real=REAL), RESNET, RECIPE_32, 32, seeds=(0,))
  jobs['classify_real_at_8'] = classify(FIFTY, dict(real=REAL), seeds=(0,))
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    others=('pretrain_base',),
    sampler=dict(BASE_SAMPLER, guidance=1.5),
    reference=mnist('validation'),
    per_class=40,
    choose='cas',
    cas=CAS_8,
    **MEASURED,
  )
  jobs['sweep_guidance'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=BASE_SAMPLER)],
    grid=dict(guidance=(1.0, 1.5, 2.0, 4.0)),
    per_class=60,
    choose='cas',
    cas=CAS_8,
    references=REFERENCES,
    **MEASURED,
  )
  jobs['select_sr16'] = dict(
    job='select',
    weights='finetune_sr16',
    others=('pretrain_sr16',),
    sampler=SR_16_SAMPLER,
    below=[BASE_USE],
    reference=mnist('validation'),
    per_class=30,
    **MEASURED,
  )
  jobs['sweep_sr16'] = dict(
    job='sweep',
    stages=[BASE_USE, dict(weights='select_sr16', sampler=SR_16_SAMPLER)],
    grid=dict(noise_augmentation=(0.0, 0.1, 0.3)),
    per_class=30,
    choose='fid_validation',
    references=REFERENCES,
    **MEASURED,
  )
  return jobs


def data_sets():
  """What is generated, how good it is, and what a classifier thinks of each image."""
  jobs = {}
  sr_32 = dict(weights='pretrain_sr32', sampler=SR_32_SAMPLER)
  shards = dict(text='embed_classes', dataset=FIFTY, shard_size=500, batch_size=250)
  jobs['generate'] = dict(
    job='generate',
    per_class=200,
    stages=[BASE_USE, dict(weights='select_sr16', sampler=SR_16_SAMPLER, tuned_by='sweep_sr16'), sr_32],
    **shards,
  )
  jobs['generate_not_finetuned'] = dict(
    job='generate',
    per_class=200,
    stages=[dict(weights='pretrain_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance')],
    **shards,
  )
  for samples, sizes in (('generate', SIZES), ('generate_not_finetuned', SIZES[:1])):
    jobs[samples.replace('generate', 'evaluate')] = dict(
      job='evaluate', samples=samples, sizes=sizes, extractor='classify_real', references=REFERENCES
    )
  jobs['score'] = dict(
    job='score', samples='generate', extractor='classify_real_at_8', real=FIFTY, size=8, batch_size=500
  )
  return jobs


def studies():
  """What the data sets are worth to classifiers."""
  jobs = {}
  jobs['classify_ten'] = classify(
    TEN,
    dict(
      real=REAL,
      synthetic=synthetic(),
      **{f'both_{num}': both(num) for num in (100, 500, 2000)},
      corpus=CORPUS,
    ),
  )
  jobs['classify_ten_augmented'] = classify(TEN, dict(real=REAL), model_recipe=AUGMENTED)
  jobs['classify_fifty'] = classify(
    FIFTY,
    dict(
      real=REAL, both=both(2000), chosen=both(1500, keep=dict(scores='score', agrees=True)), corpus=CORPUS
    ),
  )
  # ten images of each class, others with each seed, none of which the generator has seen
  not_finetuned = 'generate_not_finetuned'
  jobs['classify_not_finetuned'] = classify(
    FIFTY,
    dict(real=REAL, synthetic=synthetic(samples=not_finetuned), both=both(2000, not_finetuned)),
    real_per_class=10,
  )
  for size, model, model_recipe in ((16, RESNET_16, RECIPE_16), (32, RESNET, RECIPE_32)):
    jobs[f'classify_ten_at_{size}'] = classify(
      TEN, dict(real=REAL, synthetic=synthetic(), both=both(2000)), model, model_recipe, size, (0, 1, 2)
    )
  return jobs


def get_config():
  jobs = embedding() | training_of_stages() | choice_of_checkpoints_and_settings() | data_sets() | studies()
  jobs['report'] = dict(job='report', title='The protocol in miniature: handwritten digits', jobs=tuple(jobs))
  return jobs_config(jobs)
