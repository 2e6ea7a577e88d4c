"""Your own classes: real images, a small cascade's synthetic ones, and both, from a folder to a report.

    python -m imagenet_synth.main --config configs/own_classes.py:data/mine --workdir runs/mine
    python -m imagenet_synth.main --config configs/own_classes.py:data/mine:10     # 10 images a class

The folder holds data/mine/train/CLASS/*.jpg and, if you have one, data/mine/test/CLASS/*.jpg; or the class
folders themselves. Images of any size, format and mode are taken. Without a test folder a part of the images
is held out for it; another part is held out for choices in any case. All else is derived from the folder.

STEPS says how long it trains. Its 1,500 are far too few for photos to look like photos, but enough to see
whether all fits together; more of them, and a larger network in BASE, are the first things to change.
"""

import pathlib

from configs import cifar10_small as small
from configs import quickstart
from imagenet_synth.core.config import jobs_config
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.class_names import class_prompts
from imagenet_synth.data.image_folder import folder_contents

# of the first training of the base; the other stages and the fine-tuning take a part of it
STEPS = 1500
BASE, SR_32 = small.BASE, small.SR_32
RESNET = dict(small.RESNET, num_classes=0)
# images of each class in the synthetic data set, and in all classes of a trial of sampler settings
PER_CLASS, PER_TRIAL = 100, 200
SEEDS = (0, 1, 2)
NUM_PREVIEWED = 10


def splits(directory):
  """The training, validation and test images, and the names of the classes."""
  path, name = pathlib.Path(directory).expanduser(), 'train'
  if not (path / name).is_dir():
    # the class folders themselves
    path, name = path.parent, path.name
  contents = folder_contents(path)
  if name not in contents:
    raise InputError(f'{directory}: no such folder')
  part = lambda split: dict(name='folder', directory=str(path), split=split)
  if 'test' in contents and name == 'train':
    train, validation, test = f'{name}[:85%]', f'{name}[85%:]', 'test'
  else:
    train, validation, test = f'{name}[:60%]', f'{name}[60%:80%]', f'{name}[80%:]'
  return part(train), part(validation), part(test), contents[name].class_names


def get_config(argument=''):
  directory, _, num = (
    argument.rpartition(':') if argument.rpartition(':')[2].isdigit() else (argument, '', '')
  )
  if not directory:
    raise InputError('name the folder of your images behind a colon: configs/own_classes.py:data/mine')
  train, validation, test, class_names = splits(directory)
  if num:
    train['per_class'] = int(num)
  prompts = class_prompts(class_names)
  long_prompts = class_prompts(class_names, small.LONG)
  # bytes and the token that ends a prompt, in steps of 8
  max_length = -(-max(len(prompt.encode()) + 1 for prompt in long_prompts) // 8) * 8

  def training(job, text, optimizer, num_steps, sampler, previewed, **more):
    section = quickstart.training(job, text, train, optimizer, 2e-3, num_steps, sampler, 64, **more)
    section['preview'].update(prompts=previewed[:NUM_PREVIEWED], columns=6)
    return section

  jobs = {}
  embed = dict(
    job='embed', dataset=train, prompts='classes', encoder=quickstart.ENCODER, max_length=max_length
  )
  jobs['embed_long'] = dict(embed, template=small.LONG)
  jobs['embed_classes'] = embed
  jobs['pretrain_base'] = training(
    'pretrain', 'embed_long', 'adam', STEPS, small.FAST_SAMPLER, long_prompts, stage=BASE
  )
  jobs['pretrain_sr32'] = training(
    'pretrain', 'embed_long', 'adam', STEPS // 3, small.SR_SAMPLER, long_prompts, stage=SR_32
  )
  jobs['finetune_base'] = training(
    'finetune', 'embed_classes', 'adafactor', STEPS // 3, small.FAST_SAMPLER, prompts, init='pretrain_base'
  )
  jobs['finetune_sr32'] = training(
    'finetune', 'embed_classes', 'adam', STEPS // 6, small.SR_SAMPLER, prompts, init='pretrain_sr32'
  )

  classify = dict(
    job='classify', model=RESNET, recipe=small.RECIPE, size=32, real=train, test=test, seeds=SEEDS
  )
  jobs['classify_real'] = dict(classify, mixtures=dict(real=dict(real=True)))
  per_class = max(2, PER_TRIAL // len(class_names))
  measured = dict(text='embed_classes', extractor='classify_real', batch_size=100, per_class=per_class)
  jobs['select_base'] = dict(
    job='select', weights='finetune_base', sampler=small.FAST_SAMPLER, reference=validation, **measured
  )
  references = dict(train=train, validation=validation)
  jobs['sweep_base'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=small.FAST_SAMPLER)],
    grid=dict(guidance=(1.0, 1.5, 2.0, 3.0)),
    choose='fid_validation',
    references=references,
    **measured,
  )
  base = dict(weights='select_base', sampler=small.FAST_SAMPLER, tuned_by='sweep_base')
  jobs['generate'] = dict(
    job='generate',
    text='embed_classes',
    dataset=train,
    per_class=PER_CLASS,
    shard_size=500,
    batch_size=100,
    stages=[base, dict(weights='finetune_sr32', sampler=small.SR_SAMPLER)],
  )
  jobs['evaluate'] = dict(
    job='evaluate', samples='generate', sizes=(16, 32), extractor='classify_real', references=references
  )
  jobs['classify_synthetic'] = dict(
    classify,
    mixtures=dict(
      synthetic=dict(real=False, synthetic='generate'), both=dict(real=True, synthetic='generate')
    ),
  )
  title = f'Own classes: {pathlib.Path(directory).name}'
  jobs['report'] = dict(job='report', title=title, jobs=tuple(jobs))
  return jobs_config(jobs)
