"""DeepFloyd IF's public weights, fine-tuned on ImageNet: the paper's protocol from where anyone can start.

    python -m imagenet_synth.main --config configs/deepfloyd.py --dry_run
    python -m imagenet_synth.main --config configs/deepfloyd.py:import_stage_1

Stage I (64x64, the smallest of three, IF-I-M) and stage II (64 -> 256, IF-II-L). The README says how to get
the files. Settings that a fine-tuning has in common with the paper's are taken from imagenet.py; the
networks, schedules and thresholding are IF's own.
"""

from configs import imagenet

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

# IF's thresholds; its variance is learned, so that no mixing coefficient is set
SAMPLER_1 = dict(sampler='ddpm', num_steps=100, guidance=1.25, logvar=None, percentile=95.0, max_scale=1.5)
SAMPLER_2 = dict(
  sampler='ddpm', num_steps=50, logvar=None, noise_augmentation=0.25, percentile=95.0, max_scale=1.0
)


def all_jobs():
  """Name -> section, in order."""
  jobs, paper = {}, imagenet.all_jobs()
  jobs['embed'] = dict(paper['embed'], encoder=T5_XXL, max_length=77, padding='encoded')
  jobs['import_stage_1'] = dict(
    job='import_weights', stage=STAGE_1, text='embed', path='weights/IF-I-M-v1.0/unet'
  )
  jobs['import_stage_2'] = dict(
    job='import_weights', stage=STAGE_2_L, text='embed', path='weights/IF-II-L-v1.0/unet'
  )
  jobs['inception'] = paper['inception']
  optimizer = dict(warmup_steps=1000, learning_rate=1e-5)
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
      optimizer=dict(job['optimizer'], **optimizer),
      preview=dict(job['preview'], sampler=sampler),
      fsdp=1,
    )
  jobs['select_base'] = dict(paper['select_base'], sampler=SAMPLER_1)
  base = dict(weights='select_base', sampler=SAMPLER_1, tuned_by='sweep_base')
  jobs['sweep_base'] = dict(
    paper['sweep_base'],
    stages=[dict(weights='select_base', sampler=SAMPLER_1)],
    per_class=10,
    grid=dict(guidance=(1.0, 1.25, 1.5, 1.75, 2.0, 5.0), num_steps=(50, 100)),
  )
  jobs['generate'] = dict(
    paper['generate'],
    times_real=None,
    per_class=100,
    stages=[base, dict(weights='finetune_sr256', sampler=SAMPLER_2)],
  )
  jobs['evaluate'] = paper['evaluate']
  return jobs


def get_config(job=None):
  return imagenet.config_of(all_jobs(), job)
