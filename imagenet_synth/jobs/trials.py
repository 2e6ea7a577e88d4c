"""Trials of sampler settings: each draws the same images its own way, and is measured.

trials/NAME/images/*.tfrecord   as they are drawn, so that a kill loses little; deleted in the end
trials/NAME/samples.png         the first of them
trials/NAME/metrics_NUM.json    written last: the trial has been measured on NUM images
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_synth.cascade import TrainedStage
from imagenet_synth.core import images
from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress
from imagenet_synth.core.worker import Unfinished
from imagenet_synth.data.decode import as_picture
from imagenet_synth.data.pipeline import Images
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.jobs.classify import Subject, score
from imagenet_synth.jobs.drawing import Drawing
from imagenet_synth.jobs.extractor import Extractor
from imagenet_synth.jobs.measure import Reference, in_batches, measure, observe

_COLUMNS, _ROWS = 10, 6

Trial = dict[str, Any]
"""Field of SamplerSettings -> value."""


@dataclasses.dataclass(frozen=True)
class Trials:
  """What all trials of a sweep have in common.

  swept: the stage; a trial overrides some of its settings. drawing: its input, and the images wanted.
  ends: numbers of images on which trials are measured, ascending. cas: see `sweep.Config`.
  """

  folder: Folder
  swept: TrainedStage
  drawing: Drawing
  ends: Sequence[int]
  extractor: Extractor
  references: Mapping[str, Reference]
  cas: Subject | None

  def cost(self, trials: Sequence[Trial], num_images: int) -> int:
    """Evaluations of the network, for `num_images` images of each; guidance doubles them."""
    settings = [self._stage(trial).settings for trial in trials]
    return num_images * sum(of.num_steps * (1 + (of.guidance != 1)) for of in settings)

  def measured(self, trials: Sequence[Trial], num_images: int) -> list[dict[str, Any]]:
    """A row of figures for each; this worker measures its part of what is missing.

    Raises:
      Unfinished: the other workers have not done theirs yet.
    """
    worker = self.folder.worker
    mine = worker.part(trials)
    what = f'{self.folder.name} x{num_images:,}'
    with progress(self.cost(mine, num_images), what, unit='eval') as bar:
      for trial in mine:
        if self._metrics_path(trial, num_images).exists():
          bar.update(self.cost([trial], num_images))
        else:
          self._measure(trial, num_images, bar.update)
    missing = [trial for trial in trials if not self._metrics_path(trial, num_images).exists()]
    if missing:
      raise Unfinished(
        f'{self.folder.name}: worker {worker.index} of {worker.count} has made its part; {len(missing)} of '
        f'{len(trials)} trials of {num_images:,} images are left to the others'
      )
    return [read_json(self._metrics_path(trial, num_images)) for trial in trials]

  def clean(self, trial: Trial) -> None:
    """The trial will not be measured again."""
    shutil.rmtree(self._path(trial) / 'images', ignore_errors=True)

  def _measure(self, trial: Trial, num_images: int, on_evaluations: Callable[[int], Any]) -> None:
    path = self._path(trial)
    source = ShardSource(self._draw(trial, num_images, on_evaluations))
    size = self.swept.stage.size
    shown = np.stack([source[i]['image'] for i in range(min(_COLUMNS * _ROWS, len(source)))])
    as_picture(images.grid(shown, _COLUMNS, scale=max(1, 64 // size))).save(path / 'samples.png')
    data = Images(source, size, lambda example: example['label'], cache=False)
    observed = observe(self.extractor, in_batches(data, f'{path.name} measured'))
    metrics = {**trial, **measure(observed, self.references)}
    if self.cas:
      metrics['cas'] = score(self.cas, source, size, path / f'cas_{num_images}', self.folder)
    write_json(self._metrics_path(trial, num_images), metrics)

  def _draw(self, trial: Trial, num_images: int, on_evaluations: Callable[[int], Any]) -> list[pathlib.Path]:
    """The shards of the first images, those that are there already left out of the work."""
    stage, drawing, paths = self._stage(trial), self.drawing, []
    ends = [0] + [end for end in self.ends if end <= num_images]
    for rows in (rows for start, stop in zip(ends, ends[1:]) for rows in drawing.chunks(start, stop)):
      paths.append(self._path(trial) / 'images' / f'{rows.start:09d}-{rows.stop:09d}.tfrecord')
      if paths[-1].exists():
        on_evaluations(self.cost([trial], rows.stop - rows.start))
        continue
      pictures = drawing.draw(stage, rows, lambda num: on_evaluations(self.cost([trial], num)))
      labels, indices = drawing.labels[rows].tolist(), drawing.indices[rows].tolist()
      write_shard(
        paths[-1],
        [
          Record(picture, label, str(label), index, drawing.seed, '', trial)
          for picture, label, index in zip(pictures, labels, indices)
        ],
      )
    return paths

  def _stage(self, trial: Trial) -> TrainedStage:
    return self.swept._replace(settings=dataclasses.replace(self.swept.settings, **trial))

  def _path(self, trial: Trial) -> pathlib.Path:
    name = '-'.join(
      f'{name}_{value}' if isinstance(value, str) else f'{name}_{value:g}' for name, value in trial.items()
    )
    return self.folder.path / 'trials' / name

  def _metrics_path(self, trial: Trial, num_images: int) -> pathlib.Path:
    return self._path(trial) / f'metrics_{num_images}.json'
