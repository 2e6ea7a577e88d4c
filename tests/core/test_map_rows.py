import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core.devices import map_rows, over_devices


def test_rows_are_divided_and_put_together():
  forward = over_devices(lambda scale, x: {'sum': scale * x.sum(axis=1), 'x': x + 1})
  x = np.arange(22, dtype=np.float32).reshape(11, 2)
  for batch_size in (1, 8, 13, 64):
    outputs = map_rows(forward, jnp.float32(2), x, batch_size)
    np.testing.assert_array_equal(outputs['sum'], 2 * x.sum(axis=1))
    np.testing.assert_array_equal(outputs['x'], x + 1)
  assert jax.local_device_count() == 8
