"""Figures of a classifier's outputs: Inception Score, accuracies, calibration.

Everything takes logits [N, K] of any float type; log-probabilities are logits too (log-softmax
leaves them as they are). Sums are in float64 and over blocks of rows, so that `logits` may be a
memory map larger than memory; those of the Inception Score are streamed. Accuracies are fractions
in [0, 1]. Logits that are not [N, K] or not finite, and labels that do not fit them, raise InputError.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError

_BLOCK_ROWS = 8192
# exp() of this is 0 in float64: stands in for log 0, where 0 * log 0 = 0 is meant.
_LOG_ZERO = -800.0


class SplitSums(NamedTuple):
  """Sums over the predictions seen so far in S parts of a set, of which the Inception Score is made."""

  # how many predictions they are of, int64 [S]
  num: np.ndarray
  # of the probabilities, float64 [S, K]
  probs: np.ndarray
  # of the entropies in nats, float64 [S]
  entropy: np.ndarray

  @classmethod
  def zero(cls, num_splits: int, num_classes: int) -> 'SplitSums':
    """Returns the sums of no prediction at all, which a stream starts from."""
    return cls(np.zeros(num_splits, int), np.zeros((num_splits, num_classes)), np.zeros(num_splits))


def add_predictions(sums: SplitSums, logits: np.ndarray, splits: np.ndarray) -> SplitSums:
  """Returns the sums of the predictions seen so far and of `logits` [N, K], of `splits` int [N]."""
  logits = _checked(logits)
  num, probs, entropy = sums
  for rows, log_probs in _log_prob_blocks(logits):
    is_of = (splits[rows] == np.arange(len(num))[:, None]).astype(np.float64)
    num = num + is_of.sum(axis=1).astype(int)
    probs = probs + is_of @ np.exp(log_probs)
    entropy = entropy + is_of @ _entropy(log_probs)
  return SplitSums(num, probs, entropy)


def splits_of(places: np.ndarray, num: int, num_splits: int) -> np.ndarray:
  """Returns the split of each place in an order of `num` samples: int [n], for places int [n].

  Split i holds places floor(i N / n) to floor((i + 1) N / n), as in the code of Salimans et al.: if N is not
  divisible every sample still counts and sizes differ by one.
  """
  ends = [(i + 1) * num // num_splits for i in range(num_splits)]
  return np.searchsorted(ends, places, side='right')


def inception_score(sums: SplitSums) -> tuple[float, float]:
  """Returns mean and standard deviation over splits of exp(E_x KL(p(y|x) || p(y))).

  Salimans et al., "Improved Techniques for Training GANs", 2016, section 4. As in the authors' code the
  deviation is the population one (ddof 0). p(y) is each split's own, so splits must be drawn at random:
  of samples sorted by class, contiguous splits score about 1. The mean KL is the entropy of p(y) less the
  mean entropy.

  Raises:
    InputError: a split has no samples.
  """
  if not sums.num.all():
    raise InputError(f'inception score of {sums.num.sum()} samples cannot have {len(sums.num)} splits')
  marginal = sums.probs / sums.num[:, None]
  log_marginal = np.log(np.maximum(marginal, np.exp(_LOG_ZERO / 2)))
  marginal_entropy = -(marginal * log_marginal).sum(axis=1)
  scores = np.exp(marginal_entropy - sums.entropy / sums.num)
  return float(np.mean(scores)), float(np.std(scores))


def _entropy(log_probs: np.ndarray) -> np.ndarray:
  return -(np.exp(log_probs) * np.maximum(log_probs, _LOG_ZERO)).sum(axis=-1)


def accuracy(logits: np.ndarray, labels: np.ndarray, top: Sequence[int] = (1, 5)) -> dict[int, float]:
  """Returns {k: fraction of rows whose label is among the k largest logits} for each k in `top`.

  Logits are [N, K], labels [N] integers in [0, K). Equal logits rank by class index, as argmax does:
  a network that says the same of every class is right by chance only. k >= K gives 1.
  """
  ranks = _label_ranks(*_checked_pair(logits, labels))
  return {k: float(np.mean(ranks < k)) for k in top}


def accuracy_of_several(
  logits: np.ndarray, labels: np.ndarray, top: Sequence[int] = (1, 5)
) -> dict[int, float]:
  """Returns `accuracy` where a row may have several right labels, of which any counts.

  Labels are [N, L]; -1 stands for no label. With top of (1,) it is the ReaL accuracy of Beyer et al. ("Are
  we done with ImageNet?", 2020, section 3), where rows without any label are left out.

  Raises:
    InputError: no row has a label.
  """
  rows = np.flatnonzero(labels.max(axis=1, initial=-1) >= 0)
  if not len(rows):
    raise InputError('no image has a right label')
  logits, labels = logits[rows], labels[rows]
  ranks = np.full(len(rows), logits.shape[1])
  for column in labels.T:
    has_label = np.flatnonzero(column >= 0)
    pair = _checked_pair(logits[has_label], column[has_label])
    ranks[has_label] = np.minimum(ranks[has_label], _label_ranks(*pair))
  return {k: float(np.mean(ranks < k)) for k in top}


def likeliest(logits: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the `num` likeliest classes of each row, int64 [N, num], and their probabilities, float32.

  The likeliest is first. Equal logits rank by class index.
  """
  classes, probs = [], []
  for _, log_probs in _log_prob_blocks(_checked(logits)):
    # stable, as argmax takes the first of equals
    order = np.argsort(-log_probs, axis=1, kind='stable')[:, :num]
    classes.append(order)
    probs.append(np.exp(np.take_along_axis(log_probs, order, axis=1)).astype(np.float32))
  return np.concatenate(classes), np.concatenate(probs)


class Judgement(NamedTuple):
  """What a classifier says of images that are to be of some classes."""

  # of each image's own class, float32 [N] in [0, 1]
  probability: np.ndarray
  # of the prediction in nats, float32 [N]
  entropy: np.ndarray
  # the likeliest class, int64 [N]
  predicted: np.ndarray


def judged(logits: np.ndarray, labels: np.ndarray) -> Judgement:
  """Returns what logits float64 [N, K] say of images of the classes int [N]; all are in memory at a time."""
  log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
  probs = np.exp(log_probs)
  entropy = -(probs * log_probs).sum(axis=1)
  own = np.take_along_axis(probs, labels[:, None], axis=1)[:, 0]
  return Judgement(own.astype(np.float32), entropy.astype(np.float32), log_probs.argmax(axis=1))


def _label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns how many classes come before the label's in each row: int64 [N]."""
  ranks = np.empty(len(labels), np.int64)
  classes = np.arange(logits.shape[1])
  for rows in _row_blocks(len(logits)):
    block, label = np.asarray(logits[rows]), labels[rows, None]
    of_label = np.take_along_axis(block, label, axis=1)
    before = (block > of_label) | ((block == of_label) & (classes < label))
    ranks[rows] = before.sum(axis=1)
  return ranks


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns int64 [K, K], whose entry (i, j) counts the rows of class i with the largest logit at j."""
  logits, labels = _checked_pair(logits, labels)
  num_classes = logits.shape[1]
  predictions = np.argmax(logits, axis=1)
  cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
  return cells.reshape(num_classes, num_classes)


def per_class_accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the top-1 accuracy of each class's rows: float64 [K], NaN for a class that has none."""
  confusion = confusion_matrix(logits, labels)
  num_rows = confusion.sum(axis=1)
  return np.where(num_rows > 0, np.diag(confusion) / np.maximum(num_rows, 1), np.nan)


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
  """Returns the mean |accuracy - confidence| of bins of confidence, weighted by their rows; in [0, 1].

  Guo et al., "On Calibration of Modern Neural Networks", 2017, eq. 3. The bins are equally wide: bin m
  is ((m - 1) / num_bins, m / num_bins].
  """
  logits, labels = _checked_pair(logits, labels)
  if num_bins < 1:
    raise InputError(f'num_bins must be at least 1, got {num_bins}')
  surplus = np.zeros(num_bins)
  for rows, log_probs in _log_prob_blocks(logits):
    confidence = np.exp(log_probs.max(axis=1))
    correct = log_probs.argmax(axis=1) == labels[rows]
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    surplus += np.bincount(bins, weights=correct - confidence, minlength=num_bins)
  return float(np.abs(surplus).sum() / len(logits))


def _row_blocks(num_rows: int) -> Iterator[slice]:
  for start in range(0, num_rows, _BLOCK_ROWS):
    yield slice(start, min(start + _BLOCK_ROWS, num_rows))


def _log_prob_blocks(logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields (rows, log-softmax of these rows in float64)."""
  for rows in _row_blocks(len(logits)):
    block = np.asarray(logits[rows], np.float64)
    block = block - block.max(axis=1, keepdims=True)
    yield rows, block - np.log(np.exp(block).sum(axis=1, keepdims=True))


def _checked(logits: np.ndarray) -> np.ndarray:
  if not isinstance(logits, np.ndarray):
    logits = np.asarray(logits)
  if logits.ndim != 2 or not logits.size:
    raise InputError(f'logits have shape {logits.shape}, expected [N, K] with N and K above 0')
  # -inf is log 0 and welcome as long as a row has something else
  largest = np.concatenate([logits[rows].max(axis=1) for rows in _row_blocks(len(logits))])
  if not np.isfinite(largest).all():
    raise InputError('logits contain NaN or infinity: the classifier has diverged')
  return logits


def _checked_pair(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  logits, labels = _checked(logits), np.asarray(labels)
  if labels.shape != logits.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
    raise InputError(f'labels are {labels.dtype} {labels.shape}, expected {len(logits)} integers')
  if labels.min() < 0 or labels.max() >= logits.shape[1]:
    raise InputError(
      f'labels span {labels.min()} to {labels.max()}, '
      f'but the classifier knows classes 0 to {logits.shape[1] - 1}'
    )
  return logits, labels.astype(np.int64)
