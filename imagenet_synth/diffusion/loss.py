"""The training objective: squared error of the prediction at a random noise level."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.denoise import Prediction, target
from imagenet_synth.diffusion.schedule import Schedule, diffuse


def diffusion_loss(network: Callable[[jax.Array, jax.Array], jax.Array], x_0: jax.Array,
                   key: jax.Array, schedule: Schedule, prediction: Prediction) -> jax.Array:
  """Mean squared error per image, in the space of the prediction (Imagen: eps).

  Args:
    network: (x_t [B, H, W, C], logsnr [B]) -> output [B, H, W, C].
    x_0: float32 [B, H, W, C] in [-1, 1].
    key: for times and noise.

  Returns:
    float32 [B]. A network that always outputs 0 has loss 1 in expectation for eps.
  """
  time_key, noise_key = jax.random.split(key)
  batch_size = x_0.shape[0]
  # one uniform draw and a stride of 1/B: each u is uniform, but the batch covers [0, 1] evenly,
  # which lowers the variance of the loss (Kingma et al., 2021, appendix I.1)
  u = (jax.random.uniform(time_key) + jnp.arange(batch_size) / batch_size) % 1
  logsnr = schedule.logsnr(u)
  eps = jax.random.normal(noise_key, x_0.shape)
  output = network(diffuse(x_0, eps, logsnr), logsnr)
  return jnp.mean(jnp.square(output - target(prediction, x_0, eps, logsnr)), axis=(1, 2, 3))
