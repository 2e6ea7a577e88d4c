"""Your own classes: real images, a cascade's synthetic ones, and both, from a folder to a report.

    python -m imagenet_synth.main --config configs/own_classes.py:data/mine --workdir runs/mine
    python -m imagenet_synth.main --config configs/own_classes.py:data/mine:10             # 10 images a class
    python -m imagenet_synth.main --config configs/own_classes.py:data/mine:10,steps=5000,size=64

The folder holds data/mine/train/CLASS/*.jpg and, if you have one, data/mine/test/CLASS/*.jpg; or the class
folders themselves. Images of any size, format and mode are taken. Without a test folder a part of the images
is held out for it; another part is held out for choices in any case. All else is derived from the folder and
the machine. Behind a second colon stand, separated by commas, a number of images a class that are trained on,
and what shall not be derived:

    steps=NUM    of the base's first training; the other stages, and the fine-tuning, take a part of it
    size=NUM     height and width of the images that are drawn; the base draws them half as large
    start=NAME   small, a small cascade that is trained from nothing, or deepfloyd, the public weights of
                 DeepFloyd IF: see deepfloyd.py. deepfloyd if a GPU and the weights are there, else small
    flip=no      images are not mirrored in training, as digits and letters must not be
    names=FILE   what prompts call the classes: a line CLASS: NAME for each that its folder does not name
                 well; names.txt in the folder, if there is one
"""

import re
import sys
from typing import NamedTuple

from etils import epath

from configs import cifar10_small as small
from configs import quickstart
from imagenet_synth.core import accelerators
from imagenet_synth.core.config import jobs_config
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import absolute, data_path, weights_path
from imagenet_synth.data.class_names import NAMES_FILE, class_prompts, names_in
from imagenet_synth.data.image_folder import folder_contents

SAMPLER = quickstart.sampler(16, guidance=1.5)
SR_SAMPLER = quickstart.sampler(8)
# of classifiers
RESNET = dict(quickstart.RESNET, width=16, num_classes=0)
RECIPE = quickstart.recipe(1e-2, 0.05, num_steps=300, batch_size=64, crop_padding=4)
# images of each class in the synthetic data set, and in all classes of a trial of sampler settings
PER_CLASS, PER_TRIAL = 100, 200
SEEDS = (0, 1, 2)
NUM_PREVIEWED = 10
# that the choice depends on, where relative paths of weights begin
WEIGHTS = ('weights/IF-I-M-v1.0/unet', 'weights/IF-II-L-v1.0/unet')
_OPTIONS = ('steps', 'size', 'start', 'flip', 'names')


class Photos(NamedTuple):
  """What is in a folder, which is called `directory`: see `photos`."""

  directory: str
  train: dict
  validation: dict
  test: dict
  class_names: tuple
  # the lines of the file of names
  names: tuple
  # whether they are mirrored in training
  flip: bool
  # about, as files that cannot be decoded count, too
  num_train: int

  @property
  def title(self):
    """Of the report: it goes to others, whom the whole path tells nothing."""
    path = data_path(self.directory)
    # '.' has no name
    return f'Own classes: {path.name or absolute(path).name}'


def parsed(argument):
  """The folder, and the options behind it by name."""
  directory, colon, rest = argument.rpartition(':')
  if not (colon and re.fullmatch(r'\d+(,.*)?|\w+=.*', rest)):
    directory, rest = argument, ''
  if not directory:
    raise InputError('name the folder of your images behind a colon: own_classes:data/mine')
  options = {}
  for part in filter(None, rest.split(',')):
    name, _, value = part.rpartition('=')
    name = name or 'per_class'
    if name not in ('per_class', *_OPTIONS) or (
      name in ('per_class', 'steps', 'size') and not value.isdigit()
    ):
      raise InputError(
        f'{part!r} is neither a number of images nor one of {", ".join(_OPTIONS)} with its =VALUE'
      )
    options[name] = int(value) if value.isdigit() else value
  return directory, options


def photos(directory, options):
  """What is in the folder, as far as the names of its files tell."""
  root, name, place = data_path(directory), 'train', directory
  if not root.is_dir():
    raise InputError(f'{directory}: no such folder')
  file, flip = options.get('names'), options.get('flip', 'yes')
  if flip not in ('yes', 'no'):
    raise InputError(f'flip={flip}: must be yes or no')
  names = data_path(file) if file else root / NAMES_FILE
  if file and not names.exists():
    raise InputError(f'names={file}: no such file')
  has_test = (root / name).is_dir() and (root / 'test').is_dir()
  if not (root / name).is_dir():
    # the class folders themselves
    root, name, place = root.parent, root.name, str(epath.Path(directory).parent)
  contents = folder_contents(root, name)[name]
  part = lambda split: dict(name='folder', directory=place, split=split)
  ends = ('85%', '100%') if has_test else ('60%', '80%')
  train, validation = part(f'{name}[:{ends[0]}]'), part(f'{name}[{ends[0]}:{ends[1]}]')
  test = part('test') if has_test else part(f'{name}[{ends[1]}:]')
  num_each = [round(int(ends[0][:-1]) / 100 * num) for num in contents.class_counts]
  if 'per_class' in options:
    train['per_class'] = options['per_class']
    num_each = [min(num, options['per_class']) for num in num_each]
  given = names_in(names) if names.exists() else ()
  return Photos(directory, train, validation, test, contents.class_names, given, flip == 'yes', sum(num_each))


def derived(num_train, options):
  """Start, size and steps: those that are given, and of the others what suits the images and the machine."""
  gpu = accelerators.has_gpu()
  missing = [path for path in WEIGHTS if not weights_path(path).exists()]
  start = options.get('start') or ('deepfloyd' if gpu and not missing else 'small')
  if start not in ('deepfloyd', 'small'):
    raise InputError(f'start={start}: must be small or deepfloyd')
  # each image some hundred times in batches of 64, but no more than a CPU has done in an hour; a GPU of today
  # is taken for ten times as fast, and more
  steps = min(max(1000, 2 * num_train), 5000) * (10 if gpu else 1)
  steps = options.get('steps', steps)
  # four of each quarter
  if steps < 16:
    raise InputError(f'steps={steps}: must be at least 16')
  return start, options.get('size', 64 if gpu else 32), steps, gpu


def stages(size, width):
  """The base of half the size, and the stage that doubles it; `width` is the base's number of channels."""

  def wide(stage, channels):
    return dict(stage, channels=3, network=dict(stage['network'], channels=(channels, 2 * channels)))

  return (
    dict(wide(quickstart.BASE, width), size=size // 2),
    dict(wide(quickstart.SR, width // 2), size=size, low_res_size=size // 2),
  )


def small_cascade(own, size, num_steps, width):
  """The jobs with a small cascade that is trained from nothing."""
  jobs = training_of_stages(own, size, num_steps, width)
  jobs |= choice_of_checkpoint_and_guidance(own, size)
  jobs |= data_set_and_its_worth(own, size)
  return jobs | dict(report=dict(job='report', title=own.title, jobs=tuple(jobs)))


def training_of_stages(own, size, num_steps, width):
  """Prompts, and both stages: the base on long ones first, then on class names."""
  base_stage, sr_stage = stages(size, width)
  # with four checkpoints, one at the end
  quarter = num_steps // 16 * 4
  prompts = class_prompts(own.class_names, given=own.names)
  long_prompts = class_prompts(own.class_names, small.LONG, own.names)
  # bytes and the token that ends a prompt, in steps of 8
  max_length = -(-max(len(prompt.encode()) + 1 for prompt in long_prompts) // 8) * 8

  def training(job, text, num_steps, sampler, previewed, **more):
    section = quickstart.training(
      job, text, own.train, 'adam', 2e-3, num_steps, sampler, 64, flip=own.flip, **more
    )
    section['preview'].update(prompts=previewed[:NUM_PREVIEWED], columns=6)
    return section

  jobs = {}
  embed = dict(
    job='embed',
    dataset=own.train,
    prompts='classes',
    names=own.names,
    encoder=quickstart.ENCODER,
    max_length=max_length,
  )
  jobs['embed_long'] = dict(embed, template=small.LONG)
  jobs['embed_classes'] = embed
  jobs['pretrain_base'] = training(
    'pretrain', 'embed_long', num_steps, SAMPLER, long_prompts, stage=base_stage
  )
  jobs['finetune_base'] = training(
    'finetune', 'embed_classes', quarter, SAMPLER, prompts, init='pretrain_base'
  )
  # it has the image to go by, so that it is trained on class names at once
  jobs['pretrain_sr'] = training('pretrain', 'embed_classes', quarter, SR_SAMPLER, prompts, stage=sr_stage)
  return jobs


def choice_of_checkpoint_and_guidance(own, size):
  """The classifier on real images, which is the extractor, too; and the base's best, on validation images."""
  jobs = {}
  jobs['classify_real'] = classify(own, size, real=dict(real=True))
  per_class = max(2, PER_TRIAL // len(own.class_names))
  measured = dict(text='embed_classes', extractor='classify_real', batch_size=100, per_class=per_class)
  jobs['select_base'] = dict(
    job='select', weights='finetune_base', sampler=SAMPLER, reference=own.validation, **measured
  )
  jobs['sweep_base'] = dict(
    job='sweep',
    stages=[dict(weights='select_base', sampler=SAMPLER)],
    grid=dict(guidance=(1.0, 1.5, 2.0, 3.0)),
    choose='fid_validation',
    references=references(own),
    **measured,
  )
  return jobs


def data_set_and_its_worth(own, size):
  """What is generated, how good it is, and what it is worth to classifiers."""
  jobs = {}
  base = dict(weights='select_base', sampler=SAMPLER, tuned_by='sweep_base')
  jobs['generate'] = dict(
    job='generate',
    text='embed_classes',
    dataset=own.train,
    per_class=PER_CLASS,
    shard_size=500,
    batch_size=100,
    stages=[base, dict(weights='pretrain_sr', sampler=SR_SAMPLER)],
  )
  jobs['evaluate'] = dict(
    job='evaluate', samples='generate', sizes=(size,), extractor='classify_real', references=references(own)
  )
  jobs['classify_synthetic'] = classify(
    own,
    size,
    synthetic=dict(real=False, synthetic='generate'),
    both=dict(real=True, synthetic='generate', synthetic_share=0.5),
  )
  return jobs


def references(own):
  """What FID is to."""
  return dict(train=own.train, validation=own.validation)


def classify(own, size, **mixtures):
  """Classifiers on mixtures of real and synthetic images."""
  return dict(
    job='classify',
    model=RESNET,
    recipe=dict(RECIPE, flip=own.flip),
    size=size,
    real=own.train,
    test=own.test,
    seeds=SEEDS,
    mixtures=mixtures,
  )


def get_config(argument=''):
  from configs import deepfloyd

  directory, options = parsed(argument)
  own = photos(directory, options)
  start, size, steps, gpu = derived(own.num_train, options)
  said = f'own_classes: {len(own.class_names)} classes, about {own.num_train} images to train on'
  if start == 'deepfloyd':
    print(f"{said}; from DeepFloyd IF's weights", file=sys.stderr)
    return jobs_config(deepfloyd.own(own))
  why = 'a GPU' if gpu else 'no GPU'
  print(f'{said}; a small cascade of {size}x{size} pixels, {steps} steps ({why})', file=sys.stderr)
  return jobs_config(small_cascade(own, size, steps, 128 if gpu else 32))
