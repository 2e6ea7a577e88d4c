"""The order of a data set's images, in which every beginning holds the classes at their shares."""

from collections.abc import Sequence

import numpy as np


def class_plan(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """Returns label and index within the class, int32 [N] each, of the N = sum(counts) images in order.

  The images of each class are spread evenly: the first 1/k of a plan of k times some counts is the plan
  of these counts. With equal counts, image i is of class i mod the number of classes.

  Args:
    counts: how many images of each class there are, in label order.
  """
  of_class = np.asarray(counts)
  labels = np.repeat(np.arange(len(of_class), dtype=np.int32), of_class)
  indices = np.concatenate([np.arange(count, dtype=np.int32) for count in of_class])
  order = np.lexsort((labels, (indices + 0.5) / of_class[labels]))
  return labels[order], indices[order]
