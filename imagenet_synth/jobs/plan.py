"""Which images a data set holds: an exact class balance, in an order that keeps it for every prefix."""

import numpy as np


def class_plan(num_classes: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
  """Labels and indices within the class, int32 [num_classes * per_class] each.

  Image i is of class i mod num_classes: any prefix of whole rounds is balanced, so that the first 1x
  of a 4x data set is a 1x data set.
  """
  labels = np.tile(np.arange(num_classes, dtype=np.int32), per_class)
  indices = np.repeat(np.arange(per_class, dtype=np.int32), num_classes)
  return labels, indices
