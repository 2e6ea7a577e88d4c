"""Few labels: what do generated images add to 5,000 labelled photos of CIFAR-10?

    python -m imagenet_synth.main --config configs/cifar10_few_labels.py

The paper's setting at a size that a CPU can train: a base of 16x16 pixels, at which classifiers look, too;
data/cifar10 as for cifar10_small.py. The base is first trained on 40,000 photos without labels (in the place
of Imagen's corpus), and then on the 5,000 that classifiers have, beside these others so that it does not
forget them. Checkpoint, guidance, and the share of a batch that is synthetic are chosen on 5,000 further
photos; what is claimed is of the test images.

Training takes an hour and a half on one core, all together two and a half hours on two that were shared.
To expect: 51.4 % with the photos, each seen 20 times; 54.7 with 5,000 synthetic images beside them; 58.5 with
the photos alone, each seen 40 times, which are as many steps (docs/results.md).
"""

from configs import cifar10_small as small
from configs import quickstart
from imagenet_synth.core.config import jobs_config

LABELLED, UNLABELLED = small.images('train[:10%]'), small.images('train[10%:90%]')
# what settings of the generator are chosen by, and what those of classifiers are
VALIDATION, VALIDATION_OF_CLASSIFIERS = small.images('train[90%:95%]'), small.images('train[95%:]')
SEEDS, FEW_SEEDS = (0, 1, 2), (0, 1)
BASE_SAMPLER = quickstart.sampler(16, logvar=0.3)

# its first level is at half the size, where four blocks cost what one would cost before it
BASE = dict(
  small.BASE,
  network=dict(
    type='efficient_unet',
    channels=(48, 96),
    num_res_blocks=(2, 2),
    self_attention=(True, True),
    text_attention=(True, True),
    num_heads=3,
  ),
)
# for 16x16, and for the extractor's 32x32
RESNET_16, RESNET_32 = small.RESNET, dict(small.RESNET, stem_stride=2)


def recipe(num_steps):
  return dict(quickstart.recipe(1e-2, 0.05, num_steps, batch_size=64, crop_padding=4), flip=True)


def training(
  job, dataset, optimizer, learning_rate, schedule, num_steps, checkpoint_every, preview_sampler, **more
):
  section = quickstart.training(
    job, 'embed_classes', dataset, optimizer, learning_rate, num_steps, preview_sampler, 64, **more
  )
  section['optimizer'].update(schedule=schedule)
  section['preview'].update(prompts=small.PREVIEW)
  return dict(section, flip=True, ema_decay=0.999, checkpoint_every=checkpoint_every)


def classify(mixtures, seeds=SEEDS, test=small.TEST, model=RESNET_16, size=16, **more):
  return dict(
    job='classify',
    model=model,
    recipe=recipe(1600),
    size=size,
    real=LABELLED,
    mixtures=mixtures,
    seeds=seeds,
    test=test,
  ) | dict(more)


def synthetic(times, **more):
  return dict(real=False, synthetic='generate', synthetic_times=times, **more)


def both(times, **more):
  return dict(synthetic(times, **more), real=True)


REAL = dict(real=True)
# each real image is seen as often as without synthetic ones, which come on top; 20 times are 1,563 steps
SAME_EXPOSURES = dict(recipe(1600), num_steps=None, real_exposures=20)
MEASURED = dict(text='embed_classes', extractor='classify_real', batch_size=250)
REFERENCES = dict(train=LABELLED, validation=VALIDATION)
BASE_USE = dict(weights='select_base', sampler=BASE_SAMPLER, tuned_by='sweep_guidance')


def training_of_stages():
  """The base on photos without labels, and on labelled ones beside them."""
  jobs = {}
  jobs['embed_classes'] = dict(
    job='embed', dataset=LABELLED, prompts='classes', encoder=quickstart.ENCODER, max_length=32
  )
  # without any text; guidance 0 previews that
  jobs['pretrain_base'] = training(
    'pretrain',
    UNLABELLED,
    'adam',
    1e-3,
    'constant',
    4800,
    1200,
    dict(BASE_SAMPLER, guidance=0.0),
    stage=BASE,
    text_dropout=1.0,
  )
  # half of each batch are labelled photos, the others photos of the pretraining, still without text
  jobs['finetune_base'] = training(
    'finetune',
    LABELLED,
    'adafactor',
    1e-3,
    'cosine',
    6600,
    1650,
    BASE_SAMPLER,
    init='pretrain_base',
    blend=[dict(dataset=UNLABELLED, share=0.5)],
  )
  return jobs


def choices_and_images():
  """The base's checkpoint and guidance, by validation photos; the images, and what they are like."""
  jobs = {}
  jobs['classify_real'] = classify(dict(real=REAL), model=RESNET_32, size=32)
  jobs['classify_real_at_16'] = classify(dict(real=REAL))
  jobs['select_base'] = dict(
    job='select',
    weights='finetune_base',
    sampler=dict(BASE_SAMPLER, guidance=1.5),
    reference=VALIDATION,
    per_class=50,
    **MEASURED,
  )
  jobs['sweep_guidance'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=BASE_SAMPLER)],
    grid=dict(guidance=(1.0, 1.5, 2.0, 3.0)),
    per_class=50,
    choose='cas',
    cas=dict(model=RESNET_16, recipe=recipe(600), test=VALIDATION, seeds=FEW_SEEDS),
    references=REFERENCES,
    **MEASURED,
  )
  jobs['generate'] = dict(
    job='generate',
    text='embed_classes',
    dataset=LABELLED,
    times_real=2,
    shard_size=1000,
    batch_size=250,
    stages=[BASE_USE],
  )
  jobs['evaluate'] = dict(
    job='evaluate', samples='generate', sizes=(16,), extractor='classify_real', references=REFERENCES
  )
  # one that knows nine times as many labels: is it the labels or the images that are worth less?
  strong = dict(title='ResNet, 45,000 labels', recipe=recipe(6400), real=small.images('train[:90%]'))
  jobs['classify_strong'] = classify(dict(real=REAL), (0,), **strong)
  score = dict(job='score', samples='generate', real=LABELLED, size=16, batch_size=500)
  jobs['score'] = dict(score, extractor='classify_real_at_16')
  jobs['score_strong'] = dict(score, extractor='classify_strong')
  return jobs


def studies():
  """How synthetic images are best used, by validation photos; and what they are worth, by test photos."""
  jobs = {}
  agrees = dict(scores='score', agrees=True)
  choices = dict(
    share_25=both(1, synthetic_share=0.25),
    share_50=both(1, synthetic_share=0.5),
    share_25_agrees=both(1, synthetic_share=0.25, keep=agrees),
  )
  jobs['classify_choices'] = classify(
    choices, (0,), VALIDATION_OF_CLASSIFIERS, title='ResNet, on validation images', recipe=SAME_EXPOSURES
  )
  jobs['classify_synthetic'] = classify(
    dict(synthetic=synthetic(1), relabelled=synthetic(1, relabel='score_strong'), union=both(1))
  )
  # the best of `classify_choices`
  chosen = {f'times_{times}': both(times, synthetic_share=0.5) for times in (1, 2)}
  jobs['classify_both'] = classify(
    dict(real=REAL, **chosen), title='ResNet, each photo 20 times', recipe=SAME_EXPOSURES
  )
  # twice as long: with photos alone, as many steps as the half with synthetic images took above
  longer = dict(
    title='ResNet, each photo 40 times', recipe=dict(recipe(3200), num_steps=None, real_exposures=40)
  )
  jobs['classify_longer'] = classify(dict(real=REAL), **longer)
  jobs['classify_both_longer'] = classify(dict(times_1=both(1, synthetic_share=0.5)), **longer)
  return jobs


def get_config():
  jobs = training_of_stages() | choices_and_images() | studies()
  jobs['report'] = dict(job='report', title='Few labels: CIFAR-10', jobs=tuple(jobs))
  return jobs_config(jobs)
