"""The report's section on score jobs: what a classifier of real images says of the synthetic ones."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.metrics.uncertainty import share_interval
from imagenet_synth.report.page import Block, Picture, Section, Table
from imagenet_synth.report.results import FinishedJob, Results, number

# classes that are shown: so many that agree best, and so many that agree worst
_NUM_EXTREMES = 5


def scores(results: Results) -> Section | None:
  """Returns a row for each score job; and of each job a table of classes, and its pictures."""
  jobs = results.of_kind('score')
  if not jobs:
    return None
  header = [
    'Images',
    'Size',
    'Number',
    'Own class is the most likely (%)',
    'Its probability (%)',
    'Entropy (nats)',
    'Copies',
    'Copies (%)',
    'Among real images (%)',
  ]
  rows, note = [_row(job) for job in jobs], ' '.join(map(_note, jobs))
  blocks: list[Block] = [
    Table('What it says of all images', header, rows, note=note, jobs=[job.name for job in jobs])
  ]
  for job in jobs:
    blocks += [_classes(job), *_pictures(job)]
  return Section('What a classifier thinks of the synthetic images', blocks)


def _row(job: FinishedJob) -> list[str]:
  """Returns the cells of a job's figures."""
  result = job.result
  num = result['num_images']
  return [
    _name(job),
    f'{result["size"]}x{result["size"]}',
    f'{num:,}',
    _percent(result['agreement'], num),
    number(100 * result['probability']),
    number(result['entropy']),
    f'{result["num_copies"]:,}',
    _percent(result['num_copies'] / num, num),
    number(100 * result['copies_among_real']),
  ]


def _name(job: FinishedJob) -> str:
  """Returns what a job's images are called."""
  return f'{job.result["samples"]} ({"fine-tuned" if job.result["finetuned"] else "not fine-tuned"})'


def _percent(share: float, num: int) -> str:
  """Returns a share of `num` images in percent, with its 95 % interval."""
  low, high = share_interval(share, num)
  return f'{number(100 * share)} ({number(100 * low)} to {number(100 * high)})'


def _note(job: FinishedJob) -> str:
  """Returns what must be known of a job's row."""
  result = job.result
  doubt = f' {result["doubt"]}.' if result['doubt'] else ''
  share = result['accuracy']
  # that of a public classifier was not measured here
  right = '' if share is None else f', which gets {number(100 * share)} % of real test images right'
  return (
    f'{job.name}: by {result["extractor"]}{right}.{doubt} Copies: images that are '
    f'{number(result["copy_distance"])} or less away from one of {result["num_real"]:,} real ones '
    f'({result["real"]}), in the space of features of length 1. A '
    'generator that copies nothing has about as many of them as there are among real images. In brackets: '
    '95 % intervals.'
  )


def _classes(job: FinishedJob) -> Table:
  """Returns the classes that the classifier agrees with most and least often, most first."""
  drawn = [of for of in job.result['classes'] if of['num']]
  in_order = sorted(drawn, key=lambda of: (-of['agreement'], -of['probability']))
  if len(in_order) > 2 * _NUM_EXTREMES:
    in_order = [*in_order[:_NUM_EXTREMES], *in_order[-_NUM_EXTREMES:]]
    what = 'the classes with which the classifier agrees most and least often'
  else:
    what = 'class by class'
  header = ['Class', 'Number', 'Own class is the most likely (%)', 'Its probability (%)']
  return Table(f'{job.name}: {what}', header, _class_rows(in_order), jobs=[job.name])


def _class_rows(classes: Sequence[dict[str, Any]]) -> list[list[str]]:
  return [
    [
      class_name_and_wnid(of['name'])[0],
      f'{of["num"]:,}',
      _percent(of['agreement'], of['num']),
      number(100 * of['probability']),
    ]
    for of in classes
  ]


def _pictures(job: FinishedJob) -> list[Picture]:
  """Returns the pictures that a job has left."""
  unlikely = job.result['least_likely']
  captions = {
    'least_likely': (
      f'the {len(unlikely)} images whose own class is least likely.',
      'Generated images in reading order; in brackets what the classifier takes them for: '
      + ', '.join(f'{_class(of["class"])} ({_class(of["predicted"]) or "another class"})' for of in unlikely),
    ),
    'closest_pairs': (
      f'the {len(job.result["closest"])} images that are closest to a real one, which is on the right of '
      'each.',
      'Pairs of a generated image and a real one in reading order, with their distance: '
      + ', '.join(f'{_class(of["class"])} {number(of["distance"])}' for of in job.result['closest']),
    ),
  }
  pictures = []
  for name, (caption, alt) in captions.items():
    with Image.open(io.BytesIO((job.path / f'{name}.png').read_bytes())) as image:
      image.load()
    pictures.append(Picture(f'{job.name}_{name}', image, f'{job.name}: {caption}', f'{alt}.', [job.name]))
  return pictures


def _class(name: str | None) -> str:
  """Returns a class as people call it; '' for None."""
  return class_name_and_wnid(name)[0] if name else ''
