"""Draws the report's figures from plain numbers, in the form of the paper's figures.

The paper is Azizi et al., "Synthetic Data from Diffusion Models Improves ImageNet Classification",
2023. Accuracies are in percent, as it prints them. A standard deviation is over seeds; it is None or
NaN where there was one seed, and then nothing is drawn for it. What the paper measured can be given,
too (`paper`); it is drawn faintly.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from imagenet_synth.report.colors import BOTH, INK, MUTED, REAL, SYNTHETIC
from imagenet_synth.report.drawing import (
  FONT,
  TEXT,
  TITLE,
  WIDTH,
  MeanStd,
  Number,
  draw_faint,
  draw_line,
  draw_reference,
  draw_ring,
  guidance_axis,
  headed_rows,
  name_rows,
  new_axes,
  ordered_styles,
  short_count,
  spread_note,
  style_axes,
  write_label,
  write_legend,
  write_note,
)

_MAX_NAMED_CLASSES = 40


def guidance_fid(
  lines: Mapping[float, Sequence[tuple[float, float]]],
  paper: Mapping[float, Sequence[tuple[float, float]]] | None = None,
  ring: bool = True,
) -> Figure:
  """Returns the paper's Figure 3, left: FID against guidance, a line for each log-variance coefficient.

  Args:
    lines: {log-variance coefficient: [(guidance weight, validation FID)]}.
    paper: the same of the paper; only the coefficients of `lines` are drawn.
    ring: mark the lowest value as the best one.
  """
  figure, axes = new_axes('Guidance weight', 'Validation FID (lower is better)')
  arrays = {logvar: np.array(sorted(lines[logvar]), float) for logvar in sorted(lines)}
  for (logvar, points), (color, marker) in zip(arrays.items(), ordered_styles(len(arrays))):
    draw_line(axes, points[:, 0], points[:, 1], color, f'{logvar:g}', marker)
    draw_faint(axes, (paper or {}).get(logvar, ()), color)
  guidance_axis(axes, np.concatenate([points[:, 0] for points in arrays.values()]))
  axes.margins(y=0.12)
  if ring:
    best = min((point for points in arrays.values() for point in points), key=lambda point: point[1])
    draw_ring(axes, best[0], best[1], f'{best[1]:.3g} at {best[0]:g}')
  write_legend(axes, 'Log-variance coefficient')
  return figure


def fid_is(
  points: Sequence[tuple[float, float, float]], paper: Sequence[tuple[float, float, float]] = ()
) -> Figure:
  """Returns the paper's Figure 3, center: Inception Score against FID, a labelled mark for each guidance.

  Args:
    points: [(guidance weight, train FID, Inception Score)].
    paper: the same of the paper.
  """
  figure, axes = new_axes('Train FID (lower is better)', 'Inception Score (higher is better)')
  guidance, fid, score = np.array(sorted(points), float).T
  axes.plot(fid, score, color=MUTED.light, linewidth=1, alpha=0.6, zorder=2)
  axes.plot(fid, score, 'o', color=SYNTHETIC.light, markersize=6, zorder=3)
  for w, x, y in zip(guidance, fid, score):
    write_label(axes, x, y, f'{w:g}', (7, -9))
  draw_faint(axes, [point[1:] for point in sorted(paper)], SYNTHETIC.light)
  axes.margins(0.1, 0.12)
  write_note(axes, 'Labels: guidance weight')
  return figure


def guidance_cas(
  top_1: Sequence[tuple[float, float, Number]],
  real: MeanStd | None = None,
  paper: Sequence[tuple[float, float]] = (),
) -> Figure:
  """Returns the paper's Figure 3, right: accuracy against guidance, with a band over seeds.

  Args:
    top_1: [(guidance weight, mean %, standard deviation)] of classifiers trained on synthetic data.
    real: of the same classifier trained on real data.
    paper: [(guidance weight, top-1 %)] of the paper.
  """
  figure, axes = new_axes('Guidance weight', 'Classification accuracy score (%)')
  guidance, mean, std = np.array(sorted(top_1, key=lambda point: point[0]), float).T
  draw_line(axes, guidance, mean, SYNTHETIC.light, 'Top-1')
  axes.fill_between(guidance, mean - std, mean + std, color=SYNTHETIC.light, alpha=0.2, linewidth=0)
  draw_faint(axes, paper, SYNTHETIC.light)
  guidance_axis(axes, guidance)
  axes.margins(y=0.12)
  if real is not None:
    draw_reference(axes, real, 'Real data, top-1')
  write_note(axes, spread_note([point[2] for point in top_1]))
  return figure


def cas_evaluations(
  lines: Mapping[str, Sequence[tuple[float, float, Number]]], real: MeanStd | None = None
) -> Figure:
  """Returns accuracy against evaluations of the network, a line for each sampler with bars over seeds.

  Args:
    lines: {sampler: [(evaluations for an image, mean %, standard deviation)]} of classifiers trained on
      synthetic data.
    real: of the same classifier trained on real data.
  """
  figure, axes = new_axes('Evaluations of the network for an image', 'Classification accuracy score (%)')
  for (name, points), (color, marker) in zip(lines.items(), ordered_styles(len(lines))):
    num, mean, std = np.array(sorted(points), float).T
    draw_line(axes, num, mean, color, name, marker)
    axes.errorbar(num, mean, np.nan_to_num(std), fmt='none', ecolor=color, elinewidth=1, zorder=2)
  axes.set_xscale('log', base=2)
  axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
  axes.margins(y=0.12)
  if real is not None:
    draw_reference(axes, real, 'Real data, top-1')
  write_legend(axes, None, outside=True)
  return figure


def cas_fid(
  lines: Mapping[float, Sequence[tuple[float, float, float]]],
  paper: Mapping[float, Sequence[tuple[float, float, float]]] | None = None,
) -> Figure:
  """Returns the paper's Figure 4: classification accuracy score (CAS) against FID.

  There is a line for each log-variance coefficient, and a labelled mark for each augmentation level.

  Args:
    lines: {log-variance coefficient: [(noise augmentation level, train FID, CAS %)]}.
    paper: the same of the paper; only the coefficients of `lines` are drawn.
  """
  figure, axes = new_axes('Train FID (lower is better)', 'Classification accuracy score, top-1 (%)')
  for logvar, (color, marker) in zip(sorted(lines), ordered_styles(len(lines))):
    level, fid, cas = np.array(sorted(lines[logvar]), float).T
    draw_line(axes, fid, cas, color, f'{logvar:g}', marker)
    # two lines may run close to each other
    below = -12 if logvar == max(lines) and len(lines) > 1 else 6
    for s, x, y in zip(level, fid, cas):
      write_label(axes, x, y, f'{s:g}', (4, below), color)
    draw_faint(axes, [point[1:] for point in sorted((paper or {}).get(logvar, ()))], color)
  axes.margins(0.08, 0.12)
  write_legend(axes, 'Log-variance coefficient')
  write_note(axes, 'Labels: noise augmentation level')
  return figure


def per_class(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> Figure:
  """Returns the paper's Figure 5: top-1 accuracy of each class, trained on real and on synthetic data.

  Classes are sorted by the accuracy of training on real data; NaN (no image was tested) comes last. Up to
  40 classes are named, a row each; more are drawn by rank.

  Args:
    names: of the K classes.
    real: [K] in %, of training on real data.
    synthetic: [K] in %, of training on synthetic data.
  """
  real, synthetic = np.asarray(real, float), np.asarray(synthetic, float)
  order = np.argsort(-real, kind='stable')
  draw = _named_classes if len(names) <= _MAX_NAMED_CLASSES else _ranked_classes
  return draw([names[i] for i in order], real[order], synthetic[order])


def _named_classes(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> Figure:
  figure, axes = new_axes('Top-1 accuracy (%)', None, height=1.2 + 0.22 * len(names))
  rows = np.arange(len(names))
  axes.hlines(rows, real, synthetic, color=MUTED.light, alpha=0.45, linewidth=1.5, zorder=2)
  axes.plot(real, rows, 'o', color=REAL.light, markersize=5.5, label='Trained on real')
  axes.plot(synthetic, rows, 's', color=SYNTHETIC.light, markersize=5, label='Trained on synthetic')
  name_rows(axes, names)
  write_legend(axes, None, outside=True)
  return figure


def _ranked_classes(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> Figure:
  figure, axes = new_axes('Class, by accuracy when trained on real data', 'Top-1 accuracy (%)')
  ranks = np.arange(1, len(names) + 1)
  size = 4.5 if len(names) < 200 else 2.8
  axes.plot(ranks, real, color=REAL.light, linewidth=2.2, label='Trained on real', zorder=3)
  axes.plot(
    ranks,
    synthetic,
    's',
    color=SYNTHETIC.light,
    markersize=size,
    markeredgewidth=0,
    alpha=0.7,
    label='Trained on synthetic',
  )
  axes.margins(x=0.02)
  write_legend(axes, None, outside=True)
  return figure


def scaling(
  points: Sequence[tuple[float, float, Number]],
  real: MeanStd | None = None,
  paper: Sequence[tuple[float, float]] = (),
) -> Figure:
  """Returns the paper's Figure 6: accuracy when synthetic images are added to the real ones.

  Args:
    points: [(number of synthetic images, mean %, standard deviation)].
    real: of training on the real images alone.
    paper: [(number of synthetic images, %)] of the paper.
  """
  figure, axes = new_axes('Synthetic images added to the real ones', 'Top-1 accuracy (%)')
  num_synthetic, mean, std = np.array(sorted(points, key=lambda point: point[0]), float).T
  if real is not None:
    axes.plot([0, num_synthetic[0]], [real[0], mean[0]], color=BOTH.light, linewidth=1.8, alpha=0.45)
    axes.errorbar([0], [real[0]], [np.array(real[1], float)], fmt='o', color=REAL.light, capsize=3)
  draw_line(axes, num_synthetic, mean, BOTH.light, 'Real + synthetic')
  axes.fill_between(num_synthetic, mean - std, mean + std, color=BOTH.light, alpha=0.2, linewidth=0)
  draw_faint(axes, paper, BOTH.light)
  axes.margins(0.05, 0.15)
  if real is not None:
    draw_reference(axes, real, 'Real data alone')
  axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda num, _: short_count(num)))
  write_note(axes, spread_note([point[2] for point in points]))
  return figure


def real_vs_both(rows: Sequence[tuple[str, MeanStd, MeanStd, MeanStd, str]]) -> Figure:
  """Returns the bottom of the paper's Figure 1: an arrow from real to real + synthetic for each model.

  Args:
    rows: [(model, real, synthetic, real + synthetic, text of the gain)], the middle three each a (mean %,
      standard deviation); the first row is drawn on top.
  """
  spread = spread_note([cell[1] for row in rows for cell in row[1:4]], 'Bars')
  heads = [(name, gain, BOTH.light) for name, _, _, _, gain in rows]
  figure, axes, places = headed_rows(f'Top-1 accuracy (%). {spread}', heads)
  series = (
    ('Real', 1, REAL.light, 'o'),
    ('Synthetic', 2, SYNTHETIC.light, 's'),
    ('Real + synthetic', 3, BOTH.light, 'D'),
  )
  for name, column, color, marker in series:
    mean, std = np.array([row[column] for row in rows], float).T
    axes.errorbar(
      mean,
      places,
      xerr=std,
      fmt=marker,
      color=color,
      markersize=6,
      capsize=3,
      elinewidth=1.2,
      label=name,
      zorder=4,
    )
  for place, (_, real, _, both, _) in zip(places, rows):
    axes.annotate(
      '',
      (both[0], place),
      (real[0], place),
      zorder=3,
      arrowprops={'arrowstyle': '-|>', 'color': MUTED.light, 'shrinkA': 4, 'shrinkB': 5},
    )
  axes.margins(x=0.08)
  write_legend(axes, None, outside=True)
  return figure


class Interval(NamedTuple):
  """A difference with its interval, as a row of a figure."""

  # what it is the difference of
  name: str
  # in percentage points
  points: float
  # the ends of the interval; None if it is not known
  ends: tuple[float, float] | None
  # the difference as text
  text: str
  # whether it is of a control, without a generator
  is_control: bool = False


def gains(rows: Sequence[Interval]) -> Figure:
  """Returns differences to real images alone with their intervals, a row each, beside a line at 0."""
  colors = [MUTED.light if row.is_control else BOTH.light for row in rows]
  heads = [(row.name, row.text, color) for row, color in zip(rows, colors)]
  figure, axes, places = headed_rows('Points of top-1 accuracy, to real images alone', heads)
  axes.axvline(0, color=MUTED.light, linewidth=1.2, zorder=1)
  for place, row, color in zip(places, rows, colors):
    if row.ends:
      axes.plot(row.ends, [place, place], color=color, linewidth=2.2, solid_capstyle='butt', zorder=3)
    axes.plot(
      row.points,
      place,
      'o' if row.is_control else 'D',
      color=color,
      markerfacecolor=color if row.ends else 'none',
      markersize=6.5,
      zorder=4,
    )
  axes.margins(x=0.08)
  return figure


class Curve(NamedTuple):
  """The loss of a training run."""

  # such as 'real'; '' where a panel has one curve
  name: str
  steps: Sequence[int]
  losses: Sequence[float]
  color: str


def losses(panels: Sequence[tuple[str, Sequence[Curve]]]) -> Figure:
  """Returns losses by step, two panels in a row, each with its title and axes of its own.

  Curves of one name have one colour, and are named once, above all.
  """
  num_columns = min(2, len(panels))
  num_rows = -(-len(panels) // num_columns)
  layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, hspace=0.04, wspace=0.04)
  figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * num_rows), layout=layout)
  named: dict[str, Any] = {}
  for place, (title, curves) in enumerate(panels):
    axes = figure.add_subplot(num_rows, num_columns, place + 1)
    style_axes(axes)
    for curve in curves:
      is_point = 'o' if len(curve.steps) == 1 else ''
      (line,) = axes.plot(curve.steps, curve.losses, color=curve.color, linewidth=1.5, marker=is_point)
      named.setdefault(curve.name, line)
    axes.set_title(title, loc='left', parse_math=False, **TITLE)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda num, _: short_count(num)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
  figure.supxlabel('Step', **TITLE)
  figure.supylabel('Loss', **TITLE)
  named.pop('', None)
  if named:
    figure.legend(
      named.values(),
      named.keys(),
      loc='outside upper left',
      ncols=2,
      frameon=False,
      labelcolor=INK.light,
      prop={'family': FONT, 'size': TEXT['fontsize']},
    )
  return figure
