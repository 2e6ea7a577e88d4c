"""Few labels: what do generated images add to 5,000 labelled photos of CIFAR-10?

    python -m imagenet_synth.main --config configs/cifar10_few_labels.py

The paper's setting at a size that a CPU can train, data/cifar10 as for cifar10_small.py. The cascade is first
trained on 40,000 photos without labels (in the place of Imagen's corpus), and then on the 5,000 that
classifiers have, beside these others so that it does not forget them. Checkpoint, guidance, and the share of
a batch that is synthetic are chosen on 5,000 further photos; what is claimed is of the test images.
"""

from configs import cifar10_small as small
from configs import quickstart
from imagenet_synth.core.config import jobs_config

LABELLED, UNLABELLED = small.images('train[:10%]'), small.images('train[10%:90%]')
SEEDS, FEW_SEEDS = (0, 1, 2), (0, 1)
BASE_SAMPLER = quickstart.sampler(24, logvar=0.3)
SR_SAMPLER = quickstart.sampler(12, logvar=0.3)

# its first level is at half the size, where four blocks cost what one would cost before it
BASE = dict(
  small.BASE,
  network=dict(
    type='efficient_unet',
    channels=(64, 128),
    num_res_blocks=(2, 2),
    self_attention=(True, True),
    text_attention=(True, True),
    num_heads=4,
  ),
)
RESNET = dict(small.RESNET, width=32, stem_stride=2)


def recipe(**length):
  optimizer = quickstart.recipe(1e-2, 0.05, num_steps=1, batch_size=64)['optimizer']
  return dict(
    optimizer=dict(optimizer, warmup_steps=100),
    batch_size=64,
    crop_padding=4,
    flip=True,
    label_smoothing=0.1,
    **length,
  )


def training(job, dataset, optimizer, learning_rate, num_steps, preview_sampler, schedule, **more):
  section = quickstart.training(
    job, 'embed_classes', dataset, optimizer, learning_rate, num_steps, preview_sampler, **more
  )
  section['optimizer'].update(schedule=schedule)
  section['preview'].update(prompts=small.PREVIEW)
  return dict(section, flip=True, ema_decay=0.999)


def pretraining(stage, learning_rate, num_steps, sampler):
  """Without any text; guidance 0 previews that."""
  preview = dict(sampler, guidance=0.0)
  section = training(
    'pretrain', UNLABELLED, 'adam', learning_rate, num_steps, preview, 'constant', stage=stage
  )
  return dict(section, text_dropout=1.0, checkpoint_every=num_steps)


def finetuning(init, optimizer, learning_rate, num_steps, sampler):
  """Half of each batch are labelled photos, the others photos of the pretraining, still without text."""
  blend = [dict(dataset=UNLABELLED, share=0.5)]
  section = training(
    'finetune', LABELLED, optimizer, learning_rate, num_steps, sampler, 'cosine', init=init, blend=blend
  )
  return dict(section, checkpoint_every=num_steps // 2)


def classify(mixtures, how, seeds=SEEDS, **more):
  return dict(
    job='classify',
    model=RESNET,
    recipe=how,
    size=32,
    real=LABELLED,
    mixtures=mixtures,
    seeds=seeds,
    **dict(test=small.TEST) | more,
  )


def get_config():
  jobs = {}
  jobs['embed_classes'] = dict(
    job='embed', dataset=LABELLED, prompts='classes', encoder=quickstart.ENCODER, max_length=32
  )
  jobs['pretrain_base'] = pretraining(BASE, 1e-3, 3600, BASE_SAMPLER)
  jobs['finetune_base'] = finetuning('pretrain_base', 'adafactor', 1e-3, 3600, BASE_SAMPLER)
  jobs['pretrain_sr32'] = pretraining(small.SR_32, 2e-3, 800, SR_SAMPLER)
  jobs['finetune_sr32'] = finetuning('pretrain_sr32', 'adam', 5e-4, 200, SR_SAMPLER)
  jobs['report'] = dict(job='report', title='Few labels: CIFAR-10', jobs=tuple(jobs))
  return jobs_config(jobs)
