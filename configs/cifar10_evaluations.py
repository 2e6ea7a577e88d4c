"""What images are worth by what they cost: CAS against evaluations of the network, on CIFAR-10.

    python -m imagenet_synth.main --config configs/cifar10_evaluations.py --workdir runs/cifar10_small

As evaluations.py, with 600 images of 16x16 pixels, drawn by the base of cifar10_small.py; its jobs are done
already in a workdir where that has run. CAS is of three seeds and 5,000 validation images.

80 minutes on two CPU cores that had other work, too. To expect, CAS in %: 37.0 by 250 steps of DDPM (500
evaluations), 36.4 by 6 of DPM-Solver++ (12); three seeds each, see docs/results.md.
"""

from configs import cifar10_small as small
from configs import evaluations
from imagenet_synth.core.config import jobs_config

# an early checkpoint of the base, which guides it
WEAKER = dict(weights='pretrain_base', step=750)


def get_config():
  jobs = small.base()
  by_sampler = evaluations.sweeps(
    small.BASE_USE, WEAKER, cas=small.CAS, references=small.REFERENCES, per_class=60, **small.MEASURED
  )
  about = ('pretrain_base', 'finetune_base', 'select_base', 'sweep_guidance', *by_sampler)
  report = dict(job='report', title='What images are worth by what they cost: CIFAR-10', jobs=about)
  return jobs_config(jobs | by_sampler | dict(report_evaluations=report))
