"""DeepFloyd IF's public weights, fine-tuned on ImageNet: the paper's protocol from where anyone can start.

    python -m imagenet_synth.main --config configs/deepfloyd.py --dry_run
    python -m imagenet_synth.main --config configs/deepfloyd.py:import_stage_1    # one job
    python -m imagenet_synth.main --config configs/deepfloyd.py:gpu_24gb --dry_run
    python -m imagenet_synth.main --config configs/deepfloyd.py:own:data/mine --workdir runs/mine

Stage I (64x64, the smallest of three, IF-I-M) and stage II (64 -> 256, IF-II-L). docs/deepfloyd.md says how
to get the files. Settings that a fine-tuning has in common with the paper's are taken from imagenet.py; the
networks, schedules and thresholding are IF's own.

gpu_24gb: on one GPU of 24 GB. Stage I is trained in parts of 32 images; stage II stays as it was published,
as its weights, their average, gradients and Adam's moments alone would fill the GPU.
own: on such a GPU, your own classes in place of ImageNet's, in folders as own_classes.py wants them, which
takes this by itself where a GPU and the weights are. Needs no Inception; the classifier of the real images is
the extractor.

Hours are estimates, `--dry_run --accelerator rtx4090 --cpu_devices 1`: on one RTX 4090 at 40 % of its peak,
gpu_24gb takes 130, two thirds of them to draw 100,000 images; own 2 for ten classes. Nothing was run with the
published weights, so that there is no number to expect.
"""

from configs import cifar10_small as small
from configs import imagenet, own_classes
from imagenet_synth.core.config import jobs_config
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.class_names import class_prompts

# IF's T5 sees 77 tokens, padding included
T5_XXL = dict(
  imagenet.T5_XXL,
  weights='weights/IF-I-M-v1.0/text_encoder',
  vocabulary='weights/IF-I-M-v1.0/tokenizer/spiece.model',
)
IDDPM = dict(kind='iddpm')
STAGE_1 = dict(
  size=64,
  channels=3,
  schedule=IDDPM,
  learned_variance=True,
  network=dict(
    type='deepfloyd',
    channels=(192, 384, 576, 768),
    layers_per_block=(3, 3, 3, 3),
    attention=(False, True, True, True),
    cross_attention_size=768,
    dtype='bfloat16',
    remat=True,
  ),
)
STAGE_1_L = dict(
  STAGE_1, network=dict(STAGE_1['network'], channels=(320, 640, 960, 1280), cross_attention_size=1280)
)
STAGE_1_XL = dict(
  STAGE_1, network=dict(STAGE_1['network'], channels=(704, 1408, 2112, 2816), cross_attention_size=2816)
)
STAGE_2_L = dict(
  size=256,
  low_res_size=64,
  channels=3,
  schedule=IDDPM,
  augmentation=IDDPM,
  align_corners=True,
  learned_variance=True,
  network=dict(
    type='deepfloyd',
    channels=(160, 320, 640, 960, 1280),
    layers_per_block=(2, 2, 3, 5, 5),
    attention=(False, False, False, True, True),
    cross_attention_size=1280,
    dtype='bfloat16',
    remat=True,
  ),
)

# IF's thresholds and steps, those of the example in its README; its variance is learned, so that no mixing
# coefficient is set
SAMPLER_1 = dict(
  sampler='ddpm', spacing='smart100', guidance=1.25, logvar=None, percentile=95.0, max_scale=1.5
)
# its stage II gets images that are noised to level 250 of 0 to 999
SAMPLER_2 = dict(
  sampler='ddpm', spacing='smart50', logvar=None, noise_augmentation=0.251, percentile=95.0, max_scale=1.0
)

# IF-I-XL was trained by AdamW, with a peak of 5e-5 for batches of 3,072 (its model card): by the square root
# of the batch, 1.4e-5 for 256. It is fine-tuned by Adam and AdamW, too, with rates of 1e-7 (stage I, 4 images
# a batch) and 5e-6 (stage II, 12 images; both in diffusers' guide to DreamBooth) to 1e-4 (IF-I-L, gradients
# cut to 1; in diffengine's configs). The paper's Adafactor takes its rate as relative to a weight: 1e-5 would
# move one of 0.02 by 2e-7 a step, and one of zero by 1e-8.
OPTIMIZER = dict(name='adam', learning_rate=1e-5, schedule='cosine', warmup_steps=1000, clip_norm=1.0)


def all_jobs():
  """Name -> section, in order."""
  jobs, paper = {}, imagenet.all_jobs()
  jobs['embed'] = dict(paper['embed'], encoder=T5_XXL, max_length=77, padding='encoded', cleaning='deepfloyd')
  jobs['import_stage_1'] = dict(
    job='import_weights', stage=STAGE_1, text='embed', path='weights/IF-I-M-v1.0/unet'
  )
  jobs['import_stage_2'] = dict(
    job='import_weights', stage=STAGE_2_L, text='embed', path='weights/IF-II-L-v1.0/unet'
  )
  jobs['inception'] = paper['inception']
  for name, source, of_paper, sampler in (
    ('finetune_base', 'import_stage_1', 'finetune_base', SAMPLER_1),
    ('finetune_sr256', 'import_stage_2', 'finetune_sr256', SAMPLER_2),
  ):
    job = paper[of_paper]
    jobs[name] = dict(
      job,
      init=source,
      batch_size=256,
      num_steps=50_000,
      checkpoint_every=5_000,
      optimizer=OPTIMIZER,
      preview=dict(job['preview'], sampler=sampler),
      fsdp=1,
    )
  jobs['select_base'] = dict(paper['select_base'], sampler=SAMPLER_1)
  base = dict(weights='select_base', sampler=SAMPLER_1, tuned_by='sweep_base')
  jobs['sweep_base'] = dict(
    paper['sweep_base'],
    stages=[dict(weights='select_base', sampler=SAMPLER_1)],
    per_class=10,
    grid=dict(guidance=(1.0, 1.25, 1.5, 1.75, 2.0, 5.0), spacing=('smart50', 'smart100')),
    halving=dict(per_class=(2,), keep=1 / 3),
  )
  jobs['generate'] = dict(
    paper['generate'],
    jpeg_sizes=(),
    times_real=None,
    per_class=100,
    stages=[base, dict(weights='finetune_sr256', sampler=SAMPLER_2)],
  )
  jobs['evaluate'] = paper['evaluate']
  return jobs


def gpu_24gb():
  """The jobs on one GPU of 24 GB; how long they train is ours."""
  jobs = all_jobs()
  del jobs['finetune_sr256']
  jobs['embed']['batch_size'] = 8
  jobs['finetune_base'].update(num_steps=20_000, checkpoint_every=2_000, accumulate=8)
  for name in ('select_base', 'sweep_base'):
    jobs[name]['batch_size'] = 64
  base, _ = jobs['generate']['stages']
  jobs['generate'].update(batch_size=16, stages=[base, dict(weights='import_stage_2', sampler=SAMPLER_2)])
  return jobs


def own(photos):
  """The jobs of own_classes.py with IF in place of a cascade that is trained from nothing, on such a GPU."""
  train, validation, test = photos.train, photos.validation, photos.test
  prompts = class_prompts(photos.class_names, given=photos.names)
  jobs = gpu_24gb()
  del jobs['inception']
  jobs['embed'].update(dataset=train, names=photos.names)
  # 64 images, for which the rate of OPTIMIZER is halved
  jobs['finetune_base'].update(
    dataset=train,
    batch_size=64,
    num_steps=2_000,
    checkpoint_every=250,
    accumulate=2,
    optimizer=dict(OPTIMIZER, learning_rate=5e-6, warmup_steps=100),
    ema_decay=0.999,
    cache=True,
  )
  jobs['finetune_base']['preview'].update(prompts=prompts[: own_classes.NUM_PREVIEWED])
  classify = dict(
    job='classify',
    model=own_classes.RESNET,
    recipe=dict(small.RECIPE, flip=photos.flip),
    size=64,
    real=train,
    test=test,
    seeds=own_classes.SEEDS,
  )
  references = dict(train=train, validation=validation)
  measured = dict(
    extractor='classify_real',
    per_class=max(2, own_classes.PER_TRIAL // len(photos.class_names)),
    batch_size=64,
  )
  # fine-tuning on few images may be for the worse
  jobs['select_base'].update(measured, reference=validation, others=['import_stage_1'])
  jobs['sweep_base'].update(measured, references=references, halving=None)
  jobs['generate'].update(dataset=train, shard_size=500)
  jobs['evaluate'].update(extractor='classify_real', references=references)
  before = ('embed', 'import_stage_1', 'import_stage_2')
  jobs = {
    **{name: jobs.pop(name) for name in before},
    'classify_real': dict(classify, mixtures=dict(real=dict(real=True))),
    **jobs,
    'classify_synthetic': dict(
      classify,
      mixtures=dict(
        synthetic=dict(real=False, synthetic='generate'), both=dict(real=True, synthetic='generate')
      ),
    ),
  }
  jobs['report'] = dict(job='report', title=photos.title, jobs=tuple(jobs))
  return jobs


def get_config(argument=None):
  variant, _, rest = (argument or '').partition(':')
  if variant == 'own':
    if not rest:
      raise InputError('name the folder of your images behind it: configs/deepfloyd.py:own:data/mine')
    return jobs_config(own(own_classes.photos(*own_classes.parsed(rest))))
  if variant == 'gpu_24gb':
    return imagenet.config_of(gpu_24gb(), rest or None)
  return imagenet.config_of(all_jobs(), argument)
