"""A job of each kind that needs no published weights, as small as it can be: what processes do together."""

from ml_collections import ConfigDict

from tests import small_pipeline
from tests.small_pipeline import ADAM, DIGITS, RESNET, SAMPLER

_VALIDATION = dict(name='digits', split='validation[:50]')
_TEST = dict(name='digits', split='test[:101]')
_RECIPE = dict(optimizer=ADAM, num_steps=4, batch_size=16)
_CAS = dict(model=RESNET, recipe=_RECIPE, test=_VALIDATION, seeds=(0,), writers=())
_CLASSIFY = dict(small_pipeline.REAL, recipe=_RECIPE, test=_TEST, writers=())
_TRAIN = dict(small_pipeline.TRAIN, num_steps=4, checkpoint_every=2, save_minutes=0.0)
_FINETUNE = dict(_TRAIN, job='finetune', init='train')
_FINETUNE.pop('stage')
_USE = dict(weights='select', sampler=SAMPLER, tuned_by='sweep')
_JUDGED = dict(text='embed', extractor='real', batch_size=16)


def get_config():
  jobs = dict(
    embed=small_pipeline.EMBED,
    train=_TRAIN,
    finetune=_FINETUNE,
    real=dict(_CLASSIFY, seeds=(0, 1)),
    select=dict(
      _JUDGED,
      job='select',
      weights='finetune',
      others=('train',),
      sampler=SAMPLER,
      reference=_VALIDATION,
      per_class=2,
      choose='cas',
      cas=_CAS,
      prune=True,
    ),
    sweep=dict(
      _JUDGED,
      job='sweep',
      stages=[dict(weights='select', sampler=SAMPLER)],
      grid=dict(guidance=(1.0, 3.0, 5.0)),
      references=dict(train=DIGITS, validation=_VALIDATION),
      per_class=4,
      halving=dict(per_class=(2,), keep=0.5),
      choose='fid_validation',
      cas=_CAS,
    ),
    generate=dict(small_pipeline.GENERATE, stages=[_USE], shard_size=10),
    reduce=dict(job='reduce', samples='generate', size=8, to=[4]),
    score=dict(job='score', samples='generate', extractor='real', real=DIGITS, size=8),
    publish=dict(job='publish', samples='generate', size=8, form='folder'),
    evaluate=dict(
      job='evaluate',
      samples='generate',
      sizes=(8,),
      extractor='real',
      references=dict(train=DIGITS, validation=_VALIDATION),
    ),
    classify=dict(
      _CLASSIFY,
      mixtures=dict(
        real=dict(real=True),
        synthetic=dict(real=False, synthetic='generate', keep=dict(scores='score', probability=(0.0, 0.9))),
        both=dict(real=True, synthetic='generate', synthetic_share=0.5),
      ),
      real_per_class=4,
      seeds=(0,),
    ),
  )
  jobs['report'] = dict(job='report', title='Each kind', jobs=tuple(jobs))
  return ConfigDict(dict(jobs=jobs, order=tuple(jobs)))
