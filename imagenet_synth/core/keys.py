"""Random numbers that do not depend on how work is cut up.

An image's key is a function of (seed, stage, class, index) alone, so image i of class c is the
same for every batch size, shard layout, device count and after every restart. The i-th noise that
an image draws while it is sampled is made from `fold_in(its key, i)`.
"""

import jax
import jax.numpy as jnp
import numpy as np


def image_keys(
  seed: int, stage: int, class_ids: np.ndarray | jax.Array, indices: np.ndarray | jax.Array
) -> jax.Array:
  """Returns a key for each image: typed keys [B].

  Args:
    seed: of the data set.
    stage: position of the stage in the cascade (0 is the base).
    class_ids: uint32 [B], which stand for the class of each image: see `data.class_names.class_id`.
    indices: int [B], the image's number within its class.
  """
  stage_key = jax.random.fold_in(jax.random.key(seed), stage)
  one = lambda class_id, index: jax.random.fold_in(jax.random.fold_in(stage_key, class_id), index)
  return jax.vmap(one)(jnp.asarray(class_ids, jnp.uint32), jnp.asarray(indices))


def normal(keys: jax.Array, draw: int | jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns standard normal noise [B, *shape]: draw number `draw` of each image, from its key alone."""
  return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, draw), shape))(keys)
