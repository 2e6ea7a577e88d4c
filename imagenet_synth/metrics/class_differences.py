"""Which of many classes a classifier gets right more or less often than another one does, beyond chance."""

import math
from typing import NamedTuple

import numpy as np

from imagenet_synth.metrics.uncertainty import variance_of_seeds, varying_over_seeds

# the share of classes that are named by chance, among all that are named, on average
FALSE_DISCOVERY_RATE = 0.05


class ClassDifferences(NamedTuple):
  """How much more of each class's test images one classifier gets right than another one."""

  # over seeds and images, in [-1, 1]: float64 [K]; NaN of a class without test images
  mean: np.ndarray
  # how likely a difference as large as that is by chance: float64 [K]; NaN of a class without test images
  p_value: np.ndarray
  # whether it is beyond chance, given how many classes there are: bool [K]
  is_beyond_chance: np.ndarray


def class_differences(
  correct: np.ndarray, other: np.ndarray, labels: np.ndarray, num_classes: int, same_seeds: bool
) -> ClassDifferences:
  """Returns which classes differ, by their test images and the spread over seeds.

  A difference is held against the standard error that it has where there is none, by the normal distribution.
  Of the two sources of noise, images and seeds (see `uncertainty.accuracy_difference`), that of images is
  estimated for each class as in McNemar's test (1947): an image's difference is as likely to be of either
  sign. Half an image more of each of the values 1 and -1 keeps it above 0. That of seeds is the mean of the
  estimates of all classes: each by itself would have as few degrees of freedom as there are seeds, and none
  could be told from chance. With one seed, it counts as none.

  Args:
    correct: bool [S, N], whether the classifier of each seed is right on each test image.
    other: bool [T, N] of the other classifier, on the same images.
    labels: int [N], the classes of the images.
    num_classes: K.
    same_seeds: whether row s of both has the same seed.
  """
  mean, of_images, of_seeds = (np.full(num_classes, np.nan) for _ in range(3))
  for label in np.unique(labels):
    rows = labels == label
    right, wrong = correct[:, rows], other[:, rows]
    values = right.mean(axis=0) - wrong.mean(axis=0)
    num = len(values)
    mean[label] = values.mean()
    of_images[label] = (np.square(values).sum() + 1) / (num * (num + 1))
    of_seeds[label] = sum(map(variance_of_seeds, varying_over_seeds(right, wrong, same_seeds)))
  error = np.sqrt(of_images + max(np.nanmean(of_seeds), 0.0))
  tested = np.flatnonzero(np.isfinite(mean))
  p_value, is_beyond_chance = np.full(num_classes, np.nan), np.zeros(num_classes, bool)
  p_value[tested] = [math.erfc(z / math.sqrt(2)) for z in np.abs(mean[tested]) / error[tested]]
  is_beyond_chance[tested] = discoveries(p_value[tested])
  return ClassDifferences(mean, p_value, is_beyond_chance)


def discoveries(p_values: np.ndarray, rate: float = FALSE_DISCOVERY_RATE) -> np.ndarray:
  """Returns which of several hypotheses of no difference are rejected, bool [K], for float [K].

  Of the rejected ones, a share of `rate` at most is true on average (Benjamini & Hochberg, "Controlling the
  False Discovery Rate: A Practical and Powerful Approach to Multiple Testing", 1995, equation 1).
  """
  order = np.argsort(p_values, kind='stable')
  passes = p_values[order] <= rate * np.arange(1, len(order) + 1) / len(order)
  rejected = np.zeros(len(order), bool)
  if passes.any():
    rejected[order[: np.flatnonzero(passes)[-1] + 1]] = True
  return rejected
