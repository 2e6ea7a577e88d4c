"""Class-conditional diffusion cascades as a source of training data (Azizi et al., 2023).

For notebooks, the package has what `library.py` defines:

    load_cascade      draws images of a class from the cascade of a run
    load_images       reads the images that a run has written
    load_classifier   says what a classifier of a run takes images for
    show              makes a picture of many images

It is imported when one of these is first asked for: importing the package alone takes no time.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from imagenet_synth.library import load_cascade, load_classifier, load_images, show

# one reader of buckets for all libraries: TensorFlow's own, which epath would take, knows no s3:// and no
# conditions. Before anything else: epath decides when the first path is opened, which JAX may do by its cache
os.environ.setdefault('EPATH_USE_TF', 'false')

__all__ = ['load_cascade', 'load_classifier', 'load_images', 'show']


def __getattr__(name: str) -> Any:
  if name in __all__:
    return getattr(importlib.import_module('imagenet_synth.library'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
