"""A job of every kind, with every optional section filled in: what tests of faults break."""

import json

from ml_collections import ConfigDict

from tests.configs import tiny

_SAMPLER = dict(num_steps=4, guidance=1.5, thresholding='static', logvar=0.1)
_IF_STAGE = dict(
  size=16,
  channels=3,
  schedule=dict(kind='iddpm'),
  learned_variance=True,
  network=dict(
    type='deepfloyd',
    channels=(32, 64),
    layers_per_block=(1, 1),
    attention=(False, True),
    cross_attention_size=32,
    head_size=8,
    pool_heads=4,
  ),
)
_TWO_LEVELS = dict(
  channels=[4, 8],
  num_res_blocks=[1, 1],
  self_attention=[False, True],
  text_attention=[False, True],
  num_heads=2,
)


def get_config():
  config = json.loads(tiny.get_config().to_json_best_effort())
  jobs, order = config['jobs'], config['order']
  jobs['sweep_sr16']['halving'] = dict(per_class=[1, 2], keep=0.5)
  jobs['sweep_sr16']['statistics'] = dict(published=dict(path='configs/quickstart.py', num_images=50_000))
  jobs['classify_vit']['recipe'].update(
    randaugment=dict(num_layers=1), random_resized_crop=True, mixup_alpha=0.2, cutmix_alpha=1.0, erasing=0.1
  )
  jobs['classify_resnet'].update(loaded_size=32, title='ResNet')
  validation = dict(name='digits', split='validation')
  jobs['classify_vit'].update(
    held_out=validation,
    evaluate_every=2,
    tests=dict(again=dict(dataset=jobs['classify_vit']['test'], answers='own')),
  )
  jobs['classify_vit']['recipe'].update(crop_padding=0, least_area=0.5, interpolation='bicubic')
  jobs['finetune_base'].update(dataset=dict(jobs['finetune_base']['dataset'], min_side=8), enlarge=True)
  jobs['generate_not_finetuned'].update(jpeg_sizes=[16], stage_by_stage=True)
  jobs['generate_not_finetuned']['stages'][0] |= dict(batch_size=8)
  jobs['sweep_guidance']['stages'][-1]['sampler'] |= dict(
    sampler='ddim', eta=0.5, spacing='logsnr', guidance_interval=[-4.0, 3.0]
  )
  jobs['generate'].update(keep=[8, 16, 32], quality=90, image_format='jpeg')
  jobs['finetune_sr16']['crop'] = 8
  jobs['pretrain_sr16']['stage']['network'] |= _TWO_LEVELS
  captioned = {key: jobs['pretrain_base'][key] for key in ('text', 'dataset')}
  jobs['select_base'].update(others=['pretrain_base'], choose='cas', cas=jobs['sweep_guidance']['cas'])
  jobs['finetune_base']['blend'] = [captioned | dict(share=0.25)]
  more = dict(
    import_unet=dict(job='import_weights', path='configs', stage=_IF_STAGE, text='embed_classes'),
    import_inception=dict(job='import_extractor', network='inception', path='configs/quickstart.py'),
    score=dict(
      job='score',
      samples='generate',
      extractor='classify_real',
      real=jobs['classify_real']['real'],
      size=32,
      batch_size=16,
    ),
    publish=dict(job='publish', samples='generate', size=32, form='folder'),
    elsewhere=dict(jobs['evaluate'], samples=None, path='configs'),
    reduce=dict(job='reduce', samples='generate', size=32, to=[12], license='CC0 1.0'),
    classify_again=dict(
      jobs['classify_resnet'],
      mixtures={name: dict(of, relabel='score') for name, of in jobs['classify_resnet']['mixtures'].items()},
      init='classify_resnet',
    ),
    sample_more=dict(
      jobs['generate_not_finetuned'],
      per_class=None,
      times_real=1,
      keep=[8],
      jpeg_sizes=[],
      stages=[dict(weights='pretrain_base', sampler=_SAMPLER)],
    ),
  )
  jobs |= json.loads(json.dumps(more))
  order[-1:] = [*more, order[-1]]
  return ConfigDict(dict(jobs=jobs, order=order))
