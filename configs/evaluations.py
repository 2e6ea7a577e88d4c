"""What images are worth by what they cost: CAS against evaluations of the network, on digits.

    python -m imagenet_synth.main --config configs/evaluations.py --workdir runs/quickstart

The base of the quickstart draws the same 500 images with different samplers and numbers of steps; a
classifier is trained on each (CAS, three seeds, 400 validation images). In the workdir of a quickstart that
has ended, its jobs are done already. With guidance a step is two evaluations; in an interval of noise levels
only, fewer.

Ten minutes on two CPU cores. To expect, CAS in %: 76.3 by 250 steps of DDPM (500 evaluations), 81.8 by 6 of
DPM-Solver++ (12), 81.8 with guidance in an interval alone (8); three seeds each, see docs/results.md.
"""

from configs import quickstart as digits
from imagenet_synth.core.config import jobs_config

# by how many steps 250 of DDPM can be replaced
MANY, FEW = (4, 8, 16, 32, 64, 250), (3, 4, 6, 8, 12)
# the levels at which small steps decide what is drawn; chosen on validation images
INTERVAL = (-3.0, 3.0)
# an early checkpoint of the base, which guides it
WEAKER = dict(weights='pretrain_base', step=400)

SAMPLERS = dict(
  ddpm=(MANY, dict(sampler='ddpm')),
  ddim=((2, *FEW), dict(sampler='ddim')),
  dpmpp=((2, *FEW), dict(sampler='dpmpp_2m', spacing='logsnr')),
  heun=(FEW[:-1], dict(sampler='heun', spacing='edm')),
  dpmpp_interval=(FEW, dict(sampler='dpmpp_2m', spacing='logsnr', guidance_interval=INTERVAL)),
  dpmpp_autoguided=(FEW, dict(sampler='dpmpp_2m', spacing='logsnr')),
)


def sweeps(base, weaker, **settings):
  """A sweep over the number of steps for each sampler of `base`, which `weaker` guides in one of them."""
  jobs = {}
  for name, (num_steps, of_sampler) in SAMPLERS.items():
    stage = dict(base, sampler=digits.sampler(16, **of_sampler))
    if name.endswith('autoguided'):
      stage['guide'] = weaker
    jobs[f'by_{name}'] = dict(
      job='sweep', stages=[stage], grid=dict(num_steps=num_steps), choose='cas', **settings
    )
  return jobs


def get_config():
  jobs = digits.embedding() | digits.training_of_stages() | digits.choice_of_checkpoints_and_settings()
  by_sampler = sweeps(
    digits.BASE_USE,
    WEAKER,
    cas=dict(digits.CAS, seeds=(0, 1, 2)),
    references=digits.REFERENCES,
    **dict(digits.MEASURED, per_class=50),
  )
  about = ('pretrain_base', 'finetune_base', 'select_base', 'sweep_guidance', *by_sampler)
  report = dict(job='report', title='What images are worth by what they cost', jobs=about)
  return jobs_config(jobs | by_sampler | dict(report_evaluations=report))
