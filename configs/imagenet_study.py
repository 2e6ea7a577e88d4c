"""What the generated images are worth to classifiers: the paper's Tables 2, 3, 4 and Figure 6.

    python -m imagenet_synth.main --config configs/imagenet_study.py:table3 --workdir runs/imagenet

The argument is table2 (CAS on samples of 256x256 and 1024x1024), table3 (twelve models on real, synthetic and
both; also Figures 1 and 5), table4 (ResNet-50, 1.2M real and up to 10.8M synthetic images) or figure6 (the
same at 64x64). The jobs of imagenet.py come first; in its workdir, what is finished is skipped.

Crops for training are cut out of the photos as ImageNet has them, and out of samples of 256x256 as they are.
Those of 1024x1024 are reduced first, as in the paper: to 256x256, for DeiT-B at 384 pixels to 439x439. That
is done once, not in every epoch: to decode one takes as long as 16 of 256x256.

Single crops of the validation images' centre, 224 of 256 pixels. Number of seeds: ours.

For accelerators, after imagenet.py; not run. To expect is what the paper has: of ResNet-50, 76.39 % on real
images, 69.24 on generated ones, 78.17 on both; and with 3.6M images and more less than with 2.4M (77.61).
"""

from configs import models, recipes
from configs.imagenet import all_jobs, config_of, imagenet

SEEDS = (0, 1, 2)
# multiples of the real training set
TIMES = (1, 2, 3, 4, 5, 6, 7, 8, 9)

# row of Table 3 -> title, model, recipe, size
TABLE_3 = dict(
  resnet50=('ResNet-50', models.RESNET_50, recipes.RESNET_50, 224),
  resnet101=('ResNet-101', models.RESNET_101, recipes.RESNET, 224),
  resnet152=('ResNet-152', models.RESNET_152, recipes.RESNET, 224),
  resnet_rs50=('ResNet-RS-50', models.RESNET_RS_50, recipes.RESNET_RS, 160),
  resnet_rs101_160=('ResNet-RS-101', models.RESNET_RS_101, recipes.RESNET_RS_LARGE, 160),
  resnet_rs101_190=('ResNet-RS-101', models.RESNET_RS_101, recipes.RESNET_RS_LARGE, 190),
  resnet_rs152=('ResNet-RS-152', models.RESNET_RS_152, recipes.RESNET_RS_LARGE, 224),
  vit_s16=('ViT-S/16', models.VIT_S16, recipes.VIT_S16, 224),
  deit_s=('DeiT-S', models.DEIT_S, recipes.DEIT, 224),
  deit_b=('DeiT-B', models.DEIT_B, recipes.DEIT, 224),
  deit_b_384=('DeiT-B', models.DEIT_B, recipes.DEIT_384, 384),
  deit_l=('DeiT-L', models.DEIT_L, recipes.DEIT_L, 224),
)


def loaded_size(size):
  """The size to which images are brought before their centre of `size` is taken in the test."""
  return round(size * 256 / 224)


def sample_size(size):
  """The size of samples that crops of `size` are cut out of."""
  return max(loaded_size(size), 256)


def reduced(samples, sizes):
  """The 1024x1024 images of a generate job at the sizes that crops are cut out of."""
  return dict(job='reduce', samples=samples, size=1024, to=sizes, image_format='jpeg')


# of all rows of Table 3, also for table2, which needs one of the sizes
REDUCED = reduced('generate', tuple(sorted({sample_size(row[-1]) for row in TABLE_3.values()})))


def classify(title, model, recipe, size, mixtures, **more):
  return dict(
    job='classify',
    title=title,
    model=model,
    recipe=recipe,
    size=size,
    mixtures=mixtures,
    real=imagenet('train'),
    test=imagenet('validation'),
    seeds=SEEDS,
    **more,
  )


def mixture(real, times, size, samples='generate'):
  return dict(real=real, synthetic=samples, synthetic_times=times, synthetic_size=size)


def table2():
  return {
    'reduced': REDUCED,
    'table2': classify(
      'ResNet-50',
      models.RESNET_50,
      recipes.CAS,
      224,
      dict(
        real=dict(real=True),
        synthetic_256=mixture(False, 1, 256),
        synthetic_1024=mixture(False, 1, 256, 'reduced'),
      ),
      loaded_size=256,
    ),
  }


def table3():
  jobs = {'reduced': REDUCED}
  for name, row in TABLE_3.items():
    synthetic, both = (mixture(real, 1, sample_size(row[-1]), 'reduced') for real in (False, True))
    mixtures = dict(real=dict(real=True), synthetic=synthetic, both=both)
    jobs[f'table3_{name}'] = classify(*row, mixtures, loaded_size=loaded_size(row[-1]))
  jobs['table3_deit_b_384']['init'] = 'table3_deit_b'
  return jobs


def generate_9x(jobs):
  """As many images as the studies of scaling take; the first ones are those of `generate`."""
  return dict(jobs['generate'], times_real=max(TIMES))


def table4():
  jobs = {'generate_9x': generate_9x(all_jobs()), 'reduced_9x': reduced('generate_9x', (256,))}
  for size, samples in ((256, 'generate_9x'), (1024, 'reduced_9x')):
    mixtures = {f'both_{n}x': mixture(True, n, 256, samples) for n in TIMES}
    jobs[f'table4_{size}'] = classify(*TABLE_3['resnet50'], mixtures, loaded_size=256)
  # its runs on real images alone are those of both sizes
  return {name: table3()[name] for name in ('reduced', 'table3_resnet50')} | jobs


def figure6():
  # at 64 pixels the usual stem would leave 2x2 at the end; ours
  model = dict(models.RESNET_50, stem='small', stem_stride=2)
  mixtures = {f'both_{n}x': mixture(True, n, 64, 'generate_9x') for n in TIMES}
  return {
    'generate_9x': generate_9x(all_jobs()),
    'figure6': classify('ResNet-50', model, recipes.RESNET_50, 64, dict(real=dict(real=True), **mixtures)),
  }


STUDIES = {study.__name__: study for study in (table2, table3, table4, figure6)}


def get_config(study='table3'):
  if study not in STUDIES:
    raise ValueError(f'there is no study {study!r}; known: {", ".join(STUDIES)}')
  mine = STUDIES[study]()
  jobs = all_jobs() | mine
  made_from = ('finetune_base', 'generate', 'evaluate')
  jobs[f'report_{study}'] = dict(job='report', title=f'ImageNet: {study}', jobs=(*made_from, *mine))
  return config_of(jobs)
