"""Which images a data set holds: so many of each class, in an order that keeps their ratio."""

from collections.abc import Sequence

import numpy as np


def class_plan(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """Labels and indices within the class, int32 [sum(counts)] each, for `counts` images of each class.

  The images of each class are spread evenly: the first 1/k of a plan of k times some counts is the plan
  of these counts. With equal counts, image i is of class i mod the number of classes.
  """
  counts = np.asarray(counts)
  labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  indices = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
  order = np.lexsort((labels, (indices + 0.5) / counts[labels]))
  return labels[order], indices[order]
