"""Draws the pictures of docs/good_and_bad.md: losses and grids of healthy training and of sick, side by side.

    python -m imagenet_synth.main --config configs/good_and_bad.py --workdir runs/quickstart
    python -m benchmarks.good_and_bad runs/quickstart

Grids are parts of those that the jobs have left, `samples/STEP.png`, `samples.png` and `closest_pairs.png`,
enlarged at most.
"""

import io
import json
import pathlib
import sys

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from imagenet_synth.report import figures
from imagenet_synth.report.colors import BOTH, INK, MUTED, ORDERED, REAL, SYNTHETIC
from imagenet_synth.report.drawing import FONT
from imagenet_synth.report.pictures import to_png

_DOCS = pathlib.Path(__file__).parent.parent / 'docs'
_HEALTHY, _FAST, _SLOW = (
  ('healthy', BOTH),
  ('learning rate too high', SYNTHETIC),
  ('learning rate too low', REAL),
)
_EPS, _LONG = ('predicts eps', MUTED), ('few images, often', ORDERED[0])
# of each stage: its job, and those that went wrong
_LOSSES = {
  'Base': {'pretrain_base': _HEALTHY, 'pretrain_base_fast': _FAST, 'pretrain_base_slow': _SLOW},
  'SR stage': {'pretrain_sr32': _HEALTHY, 'pretrain_sr32_slow': _SLOW, 'pretrain_sr32_eps': _EPS},
  'Base, fine-tuned': {'finetune_base': _HEALTHY, 'finetune_base_long': _LONG},
  'SR stage, fine-tuned': {'finetune_sr32': _HEALTHY, 'finetune_sr32_fast': _FAST},
}
# pixels of a grid's left upper part, and how often they are enlarged: five images in six rows of a preview,
# three rows of a data set, all of the closest pairs
_PREVIEW, _DATA_SET, _PAIRS = ((168, 202), 2), ((658, 196), 1), ((526, 262), 1)
# of each picture: which part of its grids, how many are side by side, and their files by what is said of them
_GRIDS = {
  'base': (
    _PREVIEW,
    2,
    {
      'Healthy, half-way: step 800': 'pretrain_base/samples/000800.png',
      'Healthy, the end: step 1,600': 'pretrain_base/samples/001600.png',
      'Learning rate x 10, step 800': 'pretrain_base_fast/samples/000800.png',
      'Learning rate / 100, step 800': 'pretrain_base_slow/samples/000800.png',
    },
  ),
  'sr': (
    _PREVIEW,
    2,
    {
      'Healthy, the end: step 300': 'pretrain_sr32/samples/000300.png',
      'Too short: step 75': 'pretrain_sr32/samples/000075.png',
      'Predicts eps, step 300': 'pretrain_sr32_eps/samples/000300.png',
      'Learning rate / 100, step 300': 'pretrain_sr32_slow/samples/000300.png',
    },
  ),
  'finetuned': (
    _PREVIEW,
    2,
    {
      'Base, healthy': 'finetune_base/samples/000100.png',
      'Base, few images, often': 'finetune_base_long/samples/001000.png',
      'SR stage, healthy': 'finetune_sr32/samples/000100.png',
      'SR stage, rate x 1,000': 'finetune_sr32_fast/samples/000100.png',
    },
  ),
  'copies': (
    _PAIRS,
    1,
    {
      'Healthy: each image left of the nearest real one': 'score_base/closest_pairs.png',
      'Few images, often: the same': 'score_base_long/closest_pairs.png',
    },
  ),
  'drawn': (
    _DATA_SET,
    1,
    {
      'Healthy: guidance 2': 'draw/samples.png',
      'Guidance 16': 'draw_guidance_16/samples.png',
      'Names that it was never taught': 'draw_codes/samples.png',
      'Noise augmentation 0.8': 'draw_noisy/samples.png',
    },
  ),
}
_GAP, _TITLE = 20, 34


def main(workdir: pathlib.Path) -> None:
  """Draws all pictures."""
  panels = [
    (title, [_curve(workdir / job, *style) for job, style in jobs.items()]) for title, jobs in _LOSSES.items()
  ]
  _write('loss', figures.losses(panels))
  for name, (part, columns, files) in _GRIDS.items():
    _write(name, _panels([(title, workdir / file) for title, file in files.items()], part, columns))


def _write(name, picture):
  """Writes a picture in 32 colours, which halve the file and look the same."""
  few = Image.open(io.BytesIO(to_png(picture))).convert('RGB').quantize(32)
  (_DOCS / f'good_and_bad_{name}.png').write_bytes(to_png(few))


def _curve(folder, name, color):
  """Returns the loss of a training job."""
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return figures.Curve(name, [line['step'] for line in lines], [line['loss'] for line in lines], color.light)


def _panels(grids, part, columns):
  """Returns parts of grids in rows, each below its title."""
  (width, height), scale = part
  size = width * scale, height * scale
  steps = size[0] + _GAP, size[1] + _TITLE
  rows = -(-len(grids) // columns)
  canvas = Image.new('L', (columns * steps[0] - _GAP, rows * steps[1] + (rows - 1) * _GAP), 255)
  draw = ImageDraw.Draw(canvas)
  font = ImageFont.truetype(font_manager.findfont(FONT), 21)
  for i, (title, path) in enumerate(grids):
    x, y = i % columns * steps[0], i // columns * (steps[1] + _GAP)
    draw.text((x, y + _TITLE // 2 - 3), title, INK.light, font, anchor='lm')
    grid = Image.open(path).convert('L').crop((0, 0, width, height))
    canvas.paste(grid.resize(size, Image.Resampling.NEAREST), (x, y + _TITLE))
  return canvas


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  main(pathlib.Path(sys.argv[1]))
