"""Trials of sampler settings or checkpoints: each draws the same images with its own, and is measured.

trials/NAME/images/*.tfrecord   the images, written as they are drawn, so that a killed process loses few;
                                deleted once the trial has been measured on all
trials/NAME/images/*.partial    those of a file that is not whole yet
trials/NAME/blocks_NUM/*.npz    what the extractor says of some of NUM images, until the figures are there
trials/NAME/samples.png         a grid of the first images
trials/NAME/cas_NUM/            the classifiers that were trained on them, if CAS is measured
trials/NAME/metrics_NUM.json    the figures of NUM images, written last: the trial has been measured
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.cascade.diffusion_stage import SamplerSettings, Stage, TrainedStage
from imagenet_synth.core.files import are_there, delete_tree, read_json, write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.kept_rows import keeping_rows
from imagenet_synth.core.processes import as_first_has, is_first
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.batches import Images
from imagenet_synth.data.picture_grid import save_grid
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.evaluation.cas import CasConfig, classification_accuracy_score
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.fixed_samples import FixedSamples
from imagenet_synth.evaluation.measuring import ReferenceSet, measure
from imagenet_synth.evaluation.observation import Observation

# of the grid in samples.png
_COLUMNS, _ROWS = 10, 6

Trial = dict[str, Any]
"""What a trial differs in from the others, by name: sampler settings, or a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Trials:
  """What all trials of a job have in common."""

  # the job's own folder
  folder: JobFolder
  # the stage that is sampled
  stage: Stage
  # returns how a trial samples it
  settings_fn: Callable[[Trial], SamplerSettings]
  # returns the stage with the weights that a trial samples it with
  trained_fn: Callable[[Trial], TrainedStage]
  # the images that are drawn, and what the stage gets to draw them
  samples: FixedSamples
  # the numbers of images on which trials are measured, a round each, ascending
  ends: Sequence[int]
  # the network whose features and logits the figures are of
  extractor: Extractor
  # what the images are compared with
  references: Mapping[str, ReferenceSet]
  # the classes of the images, in the order of their labels
  class_names: Sequence[str]
  # how CAS is measured; None if it is not
  cas: CasConfig | None

  def cost(self, trials: Sequence[Trial], num_images: int) -> int:
    """Returns the network's evaluations for `num_images` images of each trial."""
    return num_images * sum(self.settings_fn(of).num_evaluations(self.stage.schedule) for of in trials)

  def say_cost(self, trials: Sequence[Trial]) -> None:
    """Tells the user how many evaluations of the network all trials take."""
    costs = sorted(self.cost([trial], self.ends[-1]) for trial in trials)
    each = ' to '.join(dict.fromkeys(f'{cost:,}' for cost in (costs[0], costs[-1])))
    at_most = ' at most' if len(self.ends) > 1 else ''
    say(
      f'{self.folder.name}: {len(trials)} trials of {self.ends[-1]:,} images, {each} evaluations of the '
      f'network each, {sum(costs):,} in all{at_most}'
    )

  def measured(self, trials: Sequence[Trial], num_images: int) -> list[dict[str, Any]]:
    """Measures this worker's part of the trials that are not measured yet; returns the figures of each trial.

    They are what the trial differs in, what `measure` returns, and `cas` if it is measured. Joined processes
    measure each trial together.

    Raises:
      Unfinished: the other workers have not done theirs yet.
    """
    worker = self.folder.worker
    mine = worker.takes_on(trials)
    what = f'{self.folder.name} x{num_images:,}'
    is_measured = lambda trial: self._metrics_path(trial, num_images).exists()
    with progress(self.cost(mine, num_images), what, unit='eval') as bar:
      for trial, is_done in zip(mine, as_first_has([is_measured(trial) for trial in mine])):
        if is_done:
          bar.update(self.cost([trial], num_images))
        else:
          self._measure(trial, num_images, bar.update)
        if num_images == self.ends[-1]:
          self.delete_images(trial)
    worker.require_all(
      self.folder.name, lambda: [*map(is_measured, trials)], f'trials of {num_images:,} images'
    )
    return [read_json(self._metrics_path(trial, num_images)) for trial in trials]

  def delete_images(self, trial: Trial) -> None:
    """Deletes the images of a trial that need not be measured again; its figures stay."""
    if is_first():
      delete_tree(self._path(trial) / 'images')

  def _measure(self, trial: Trial, num_images: int, on_evaluations: Callable[[int], Any]) -> None:
    """Draws the images of a trial, measures them, and writes the figures."""
    path, size, within = self._path(trial), self.stage.size, self.folder.worker.within
    source = ShardSource(self._draw(trial, num_images, on_evaluations))
    data = Images(source, size, lambda example: example['label'], cache=False)
    observation = Observation(
      self.extractor, data, path / f'blocks_{num_images}', f'{self.folder.name} {path.name} measured'
    )
    observation.observe(within.part(observation.blocks))
    metrics = dict(trial)
    if self.cas:
      names = self.class_names
      metrics['cas'] = classification_accuracy_score(
        self.cas, source, names, names, size, path / f'cas_{num_images}', self.folder
      )
    within.require_all(str(path), lambda: are_there(observation.blocks), 'blocks')
    if is_first():
      shown = np.stack([source[i]['image'] for i in range(min(_COLUMNS * _ROWS, len(source)))])
      save_grid(path / 'samples.png', shown, _COLUMNS)
      metrics |= measure(observation.merged(), self.references)
      write_json(self._metrics_path(trial, num_images), metrics)
      observation.delete()

  def _draw(self, trial: Trial, num_images: int, on_evaluations: Callable[[int], Any]) -> list[epath.Path]:
    """Draws those of the first images that are not there, and returns the shards of all."""
    within = self.folder.worker.within
    chunks = {
      self._path(trial) / 'images' / f'{rows.start:09d}-{rows.stop:09d}.tfrecord': rows
      for rows in self._chunks(num_images)
    }
    (is_drawn,) = as_first_has([all(path.exists() for path in chunks)])
    if is_drawn:
      on_evaluations(self.cost([trial], num_images))
      return list(chunks)
    trained = self.trained_fn(trial)._replace(settings=self.settings_fn(trial))
    mine = within.part(list(chunks))
    for path in mine:
      rows = chunks[path]
      if path.exists():
        on_evaluations(self.cost([trial], rows.stop - rows.start))
        continue
      with keeping_rows(path.with_suffix('.partial'), f'{self.folder.name} {self._path(trial).name}') as kept:
        pictures = self.samples.draw(trained, rows, kept, lambda num: on_evaluations(self.cost([trial], num)))
        labels, indices = self.samples.labels[rows].tolist(), self.samples.indices[rows].tolist()
        records = [
          Record(picture, label, str(label), index, self.samples.seed, '', trial)
          for picture, label, index in zip(pictures, labels, indices)
        ]
        write_shard(path, records)
      kept.delete()
    within.require_all(str(self._path(trial)), lambda: are_there(list(chunks)), 'shards of images')
    num_others = sum(rows.stop - rows.start for path, rows in chunks.items() if path not in mine)
    on_evaluations(self.cost([trial], num_others))
    return list(chunks)

  def _chunks(self, num_images: int) -> list[slice]:
    """Returns slices of the first images that end where a round ends, so that later rounds reuse shards."""
    ends = [0] + [end for end in self.ends if end <= num_images]
    return [chunk for start, stop in itertools.pairwise(ends) for chunk in self.samples.chunks(start, stop)]

  def _path(self, trial: Trial) -> epath.Path:
    name = '-'.join(f'{name}_{_short(value)}' for name, value in trial.items())
    return self.folder.path / 'trials' / name

  def _metrics_path(self, trial: Trial, num_images: int) -> epath.Path:
    return self._path(trial) / f'metrics_{num_images}.json'


def _short(value: Any) -> str:
  """Returns a setting as a part of a folder's name."""
  if isinstance(value, tuple):
    return '_to_'.join(map(_short, value))
  return f'{value:g}' if isinstance(value, float) else str(value)


def loss(row: Mapping[str, Any], choose: str) -> float:
  """Returns the number by which trials are ranked: the lowest is the best.

  Args:
    row: the figures of a trial.
    choose: the figure that counts, a FID; or 'cas', of which the highest is the best.
  """
  return -row['cas']['top_1']['mean'] if choose == 'cas' else row[choose]
