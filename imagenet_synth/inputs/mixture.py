"""The training sets of classifiers: real images, synthetic ones or both, and how batches are made of them."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from imagenet_synth.core.config import Count, Invalid, NonNegative, Positive, Range
from imagenet_synth.data.batches import SHORTEST_SHARE, Blend, Drawable, Images, Joined, share_of_batch
from imagenet_synth.data.source import Contents
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.inputs.scores import Keep, Scores

Share = Annotated[float, Range(low=float(SHORTEST_SHARE), high=float(1 - SHORTEST_SHARE))]
"""A share of each batch."""


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A training set: the real images or not, and some of a generate job's or others in their place."""

  # whether the real images of the job are in it
  real: bool
  # the generate job whose images are in it; none if not given
  synthetic: Samples | None = None
  # labelled real images in the place of synthetic ones, as a control: such as those that the generator has
  # learned from. What `synthetic_*` says is said of them, but for the size
  stand_in: DatasetConfig | None = None
  # the number of synthetic images, the first ones, so that classes keep their shares; all if not given
  synthetic_num: Count | None = None
  # the number of synthetic images as a multiple of that of the real ones; only one of the two can be set
  synthetic_times: Positive | None = None
  # which synthetic images are used, by their scores; all if not given. The first ones of these are taken
  keep: Keep | None = None
  # a score job whose classifier's most likely classes are the labels of synthetic images, in the place of the
  # classes that they were drawn of. With a classifier that is better than those to be trained it tells
  # whether labels are at fault, or the images
  relabel: Scores | None = None
  # the size that synthetic images are read at, for random resized crops to be cut out of, or to be reduced to
  # the size that is wanted; if not given, the smallest that is large enough
  synthetic_size: Count | None = None
  # the share of each batch that is synthetic, as the nearest fraction with a denominator of at most 64, of
  # which the batch must be a multiple; if not given, batches are drawn from all images alike
  synthetic_share: Share | None = None
  # what a synthetic image counts in the loss, where a real one counts 1; at 0 there are none. An image that
  # Mixup or CutMix makes of two counts what both do, by their shares
  synthetic_weight: NonNegative = 1.0
  # whether training normalises synthetic images by the statistics of those in the batch, and real ones by
  # those of the real ones, which alone are remembered for the test. AdvProp (Xie et al., 2020) does so for
  # adversarial images, but has scale and bias apart, too. Mixup and CutMix mix images of one kind then
  own_statistics: bool = False

  def validate(self) -> None:
    """Raises `Invalid` if there are no images, or settings of synthetic ones contradict each other."""
    has_added = self.synthetic is not None or self.stand_in is not None
    if not self.real and not has_added:
      raise Invalid('', 'has no images: it needs real=True, synthetic=NAME, or both')
    if self.synthetic is not None and self.stand_in is not None:
      raise Invalid('stand_in', 'and synthetic are both set; leave one out')
    for key in ('synthetic_size', 'keep', 'relabel'):
      if self.synthetic is None and getattr(self, key) is not None:
        raise Invalid(key, 'is set, but synthetic is not')
    defaults = {field.name: field.default for field in dataclasses.fields(self)}
    how_mixed = ('synthetic_share', 'synthetic_weight', 'own_statistics')
    for key in ('synthetic_num', 'synthetic_times', *how_mixed):
      if not has_added and getattr(self, key) != defaults[key]:
        raise Invalid(key, 'is set, but neither synthetic nor stand_in is')
    for key in how_mixed:
      if not self.real and getattr(self, key) != defaults[key]:
        raise Invalid(key, 'is set, but there are no real images beside the synthetic ones')
    if self.synthetic_num is not None and self.synthetic_times is not None:
      raise Invalid('synthetic_num', 'and synthetic_times are both set; leave one out')
    if self.synthetic_share is not None and not self.synthetic_weight:
      raise Invalid('synthetic_share', 'is set, but synthetic_weight is 0, which leaves synthetic images out')
    if self.own_statistics and self.synthetic_share is None:
      raise Invalid('own_statistics', 'is set, but synthetic_share is not')

  @property
  def added(self) -> Samples | DatasetConfig | None:
    """Returns what is trained on beside real images or instead of them; None if nothing is."""
    return (self.synthetic or self.stand_in) if self.synthetic_weight else None

  @property
  def counts(self) -> tuple[int, int] | None:
    """Returns how many images of each so many of a batch are real and synthetic; None if it is left open."""
    if self.synthetic_share is None:
      return None
    share = share_of_batch(self.synthetic_share)
    return share.denominator - share.numerator, share.numerator

  @property
  def groups(self) -> tuple[int, ...]:
    """Returns the groups that have batch statistics of their own: see `ClassifierObjective`."""
    return self.counts if self.own_statistics and self.counts else ()

  def joined(self, parts: Sequence[Images]) -> Drawable:
    """Returns what batches are drawn from, given real images and synthetic ones, or one of the two."""
    if len(parts) == 1:
      return parts[0]
    weights = None if self.synthetic_weight == 1 else (1.0, self.synthetic_weight)
    return Joined(parts, weights) if self.counts is None else Blend(parts, self.counts, weights)

  def check(self, loaded_size: int, real: Contents, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` below `key` if images to be added do not suit the real ones, or are not so many.

    Args:
      loaded_size: the size to which images are brought.
      real: what is known of the real images.
      jobs: all jobs.
      key: the dotted key of the mixture.
    """
    channels: int | None
    if self.synthetic is not None:
      if not self.large_enough(self.synthetic.sizes(jobs), loaded_size):
        made = ', '.join(map(str, self.synthetic.sizes(jobs)))
        size = self.synthetic_size or f'unset, and images of {loaded_size} pixels or more are wanted'
        raise Invalid(f'{key}.synthetic_size', f'is {size}; {self.synthetic} makes {made}')
      if self.keep is not None:
        self.keep.scores.require_samples(self.synthetic, jobs, f'{key}.keep.scores')
      if self.relabel is not None:
        self.relabel.require_samples(self.synthetic, jobs, f'{key}.relabel')
      field, what, channels = 'synthetic', str(self.synthetic), self.synthetic.channels(jobs)
      num = self.synthetic.num_images(jobs)
    elif self.stand_in is not None:
      known = self.stand_in.contents(jobs.workdir, f'{key}.stand_in')
      if known.class_names == ():
        raise Invalid(f'{key}.stand_in', f'is {self.stand_in}, which has no labels')
      if real.class_names:
        require_known(known.class_names or (), real.class_names, f'{key}.stand_in')
      field, what, channels, num = 'stand_in', str(self.stand_in), known.channels, known.num_examples
    else:
      return
    if real.channels and channels and real.channels != channels:
      raise Invalid(f'{key}.{field}', f'is {what}, of {channels} channels; real images have {real.channels}')
    name = 'synthetic_num' if self.synthetic_times is None else 'synthetic_times'
    wanted = self.num_wanted(real.num_examples)
    if num is not None and wanted is not None and wanted > num:
      raise Invalid(f'{key}.{name}', f'wants {wanted:,} images of {what}, which has {num:,}')

  def large_enough(self, sizes: Sequence[int], loaded_size: int) -> list[int]:
    """Returns those of some sizes at which synthetic images can be read: they are never enlarged."""
    return [size for size in sizes if size >= loaded_size and self.synthetic_size in (None, size)]

  def num_wanted(self, num_real: int | None) -> int | None:
    """Returns how many synthetic images are wanted, beside so many real ones; None for all, or not known."""
    if self.synthetic_times is None or num_real is None:
      return self.synthetic_num
    return max(round(self.synthetic_times * num_real), 1)


def require_known(names: Sequence[str], known: Sequence[str], key: str) -> None:
  """Raises `Invalid` for `key` if a class that is tested is not trained on."""
  for name in names:
    if name not in known:
      raise Invalid(key, f'has the class {name!r}, which is not among those of `real`')
