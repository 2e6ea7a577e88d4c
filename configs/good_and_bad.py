"""What goes wrong in training and in drawing, made on purpose: the sick runs of docs/good_and_bad.md.

    python -m imagenet_synth.main --config configs/good_and_bad.py --workdir runs/quickstart
    python -m benchmarks.good_and_bad runs/quickstart

Each sick job is one of the quickstart's, but for what stands here. In the workdir of a quickstart that has
ended, its jobs, the healthy ones, are done already. The second command draws the pictures of the page.

11 minutes of CPU time on two cores. To expect: at step 800 the loss of the base is 0.093 in the healthy run,
0.138 with ten times its learning rate, 0.358 with a hundredth of it. A score job calls 17 of 200 images
copies where the labelled ones were seen too often, and none of those of the healthy run.
"""

from configs import quickstart as digits
from imagenet_synth.core.config import jobs_config

# images of each class
NUM_DRAWN = 20
# names that the corpus does not use
CODES = tuple(f'{name}: class {number}' for number, name in enumerate(digits.NAMES))
SR_USE = dict(weights='finetune_sr32', sampler=digits.SR_SAMPLER)
NOISY_SR_USE = dict(SR_USE, sampler=dict(digits.SR_SAMPLER, noise_augmentation=0.8))


def with_rate(section, learning_rate, num_steps, **more):
  """The training job with another learning rate and number of steps."""
  optimizer = dict(section['optimizer'], learning_rate=learning_rate)
  return dict(section, optimizer=optimizer, num_steps=num_steps, **more)


def training(healthy):
  """Stages that have not learned what they should."""
  jobs = {}
  jobs['pretrain_base_fast'] = with_rate(healthy['pretrain_base'], 3e-2, 800)
  jobs['pretrain_base_slow'] = with_rate(healthy['pretrain_base'], 3e-5, 800)
  jobs['pretrain_sr32_slow'] = with_rate(healthy['pretrain_sr32'], 3e-5, 300)
  jobs['pretrain_sr32_eps'] = dict(healthy['pretrain_sr32'], stage=dict(digits.SR, prediction='eps'))
  # the labelled images alone, each 640 times, at the learning rate of pretraining
  jobs['finetune_base_long'] = with_rate(
    healthy['finetune_base'], 3e-3, 1000, blend=[], checkpoint_every=1000
  )
  jobs['finetune_sr32_fast'] = with_rate(healthy['finetune_sr32'], 0.3, 100)
  return jobs


def generate(*behind, base='finetune_base', guidance=2.0, text='embed_classes'):
  return dict(
    job='generate',
    text=text,
    dataset=digits.FIFTY,
    per_class=NUM_DRAWN,
    shard_size=100,
    batch_size=100,
    stages=[dict(weights=base, sampler=dict(digits.PREVIEW_SAMPLER, guidance=guidance)), *behind],
  )


def drawing(healthy):
  """The healthy cascade, drawn well and badly; and what the base draws whose images are copies."""
  jobs = {}
  jobs['draw'] = generate(SR_USE)
  jobs['draw_guidance_16'] = generate(SR_USE, guidance=16.0)
  jobs['draw_noisy'] = generate(NOISY_SR_USE)
  jobs['embed_codes'] = dict(healthy['embed_classes'], names=CODES)
  jobs['draw_codes'] = generate(SR_USE, text='embed_codes')
  jobs['draw_base'] = generate()
  jobs['draw_base_long'] = generate(base='finetune_base_long')
  jobs['classify_at_8'] = digits.classify(
    'ResNet, 50 a class', digits.FIFTY, dict(real=digits.REAL), model_recipe=digits.LONGER, seeds=(0,)
  )
  for name in ('base', 'base_long'):
    jobs[f'score_{name}'] = dict(
      job='score', samples=f'draw_{name}', extractor='classify_at_8', size=16, real=digits.TEN, batch_size=500
    )
  return jobs


def get_config():
  healthy = digits.embedding() | digits.training_of_stages()
  sick = training(healthy) | drawing(healthy)
  report = dict(job='report', title='What goes wrong, made on purpose: digits', jobs=(*healthy, *sick))
  return jobs_config(healthy | sick | dict(report_good_and_bad=report))
