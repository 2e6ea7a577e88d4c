"""One training step: the same on any mesh; its average of the weights; what a resume gives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from imagenet_synth.cascade import DiffusionObjective, Stage
from imagenet_synth.core.checkpoint import Checkpoints
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.mesh import AXES, make_mesh
from imagenet_synth.models.unet import UNet
from imagenet_synth.train.loop import fit, restore_or_init
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_ADAM = Optimizer('adam', 1e-2)
_ADAFACTOR = Optimizer('adafactor', 1e-2)


class _Line(nn.Module):
  """The least that can be trained: w * x, in the form of a stage's network."""

  @nn.compact
  def __call__(self, x_t, logsnr, text, low_res=None, aug_logsnr=None, *, train=False):
    return nn.Dense(1, name='w')(x_t)


def _objective(network):
  return DiffusionObjective(Stage(4, 1, network, text_length=2, text_size=3))


_LINE = _objective(_Line())


def _batches(start, stop):
  for step in range(start, stop):
    rng = np.random.default_rng(step)
    yield {'image': rng.integers(0, 256, (8, 4, 4, 1), np.uint8),
           'prompt': rng.integers(0, 5, 8).astype(np.int32)}


def _context():
  return {'text': np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)}


def _one_device_mesh():
  return jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])


def _train(trainer, num_steps):
  state, losses = trainer.init(3), []
  for batch in _batches(0, num_steps):
    state, metrics = trainer.step(state, batch, _context())
    losses.append(float(metrics['loss']))
  return jax.device_get(state), losses


def _assert_close(tree, expected, **tolerance):
  for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected),
                                 strict=True):
    np.testing.assert_allclose(leaf, other, err_msg=jax.tree_util.keystr(path), **tolerance)


@pytest.mark.parametrize('optimizer', [_ADAM, _ADAFACTOR], ids=lambda optimizer: optimizer.name)
def test_eight_devices_take_the_step_of_one(optimizer):
  network = UNet(channels=8, channel_multiples=(1,), num_res_blocks=1, attention_sizes=(4,), head_size=8)
  objective = _objective(network)
  one = make_trainer(objective, optimizer, 2, 0.9, _one_device_mesh())
  eight = make_trainer(objective, optimizer, 2, 0.9, make_mesh(fsdp=2, tensor=2))
  kernel = eight.shardings.params['down_0_0']['conv_in']['kernel']
  assert kernel.shard_shape((3, 3, 8, 8)) == (3, 3, 4, 4)
  state, losses = _train(one, 2)
  state_8, losses_8 = _train(eight, 2)
  np.testing.assert_allclose(losses_8, losses, rtol=1e-5)
  # a first step of either optimizer is of size lr whatever the gradient: where that is rounding error,
  # so is the step's sign
  for tree in ('params', 'ema'):
    pairs = zip(jax.tree.leaves(getattr(state, tree)), jax.tree.leaves(getattr(state_8, tree)))
    differences = np.concatenate([np.ravel(a - b) for a, b in pairs])
    assert np.mean(np.abs(differences) < 1e-4) > 0.999


def test_the_average_is_that_of_the_formula():
  trainer = make_trainer(_LINE, _ADAM, 30, 0.5, _one_device_mesh())
  state = trainer.init(0)
  expected = jax.device_get(state.params)
  for step, batch in enumerate(_batches(0, 30), 1):
    state, _ = trainer.step(state, batch, _context())
    decay = min(0.5, step / (step + 10))
    expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, expected,
                            jax.device_get(state.params))
  _assert_close(jax.device_get(state.ema), expected, rtol=1e-5)
  assert int(state.step) == 30


def test_runs_that_differ_in_seed_share_a_trainer_but_not_a_result():
  make = lambda: make_trainer(_LINE, _ADAM, 4, 0.9, _one_device_mesh())
  assert make() is make()
  w = [np.asarray(make().init(seed).params['w']['kernel']) for seed in (0, 0, 1)]
  assert w[0] == w[1] and w[0] != w[2]


class _Log:
  """A writer that keeps what it is given."""

  def __init__(self):
    self.steps = []

  def write_scalars(self, step, scalars):
    self.steps.append(step)

  def flush(self):
    pass


def _fit(path, stop_after=None, batches=_batches, log=None):
  """Trains for 6 steps with a checkpoint at each second; stop_after: raises after that step's save."""
  trainer = make_trainer(_LINE, _ADAFACTOR, 6, 0.9, make_mesh())
  checkpoints = Checkpoints(path, keep_every=2)

  def stop(step, state):
    if step == stop_after:
      raise KeyboardInterrupt

  try:
    return jax.device_get(fit(
        trainer, restore_or_init(trainer, checkpoints, lambda: trainer.init(3)), batches, _context(), 6,
        batch_size=8, checkpoints=checkpoints, checkpoint_every=2, origin={}, writer=log or _Log(),
        what='test', on_checkpoint=stop, log_every=1))
  finally:
    checkpoints.close()


def test_resumed_training_equals_uninterrupted_training(tmp_path):
  whole = _fit(tmp_path / 'whole')
  with pytest.raises(KeyboardInterrupt):
    _fit(tmp_path / 'cut', stop_after=4)
  log = _Log()
  resumed = _fit(tmp_path / 'cut', log=log)
  assert log.steps == [5, 6]
  _assert_close(resumed, whole, rtol=0, atol=0)
  # nothing is left to do: the same state again
  _assert_close(_fit(tmp_path / 'cut'), whole, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
  def diverging(start, stop):
    for step, batch in enumerate(_batches(start, stop), start + 1):
      # NaN cannot be in a uint8 image: a prompt out of range reads the last row, which is made NaN
      yield batch if step < 5 else {**batch, 'prompt': np.full(8, 4, np.int32)}

  class _Nan(_Line):
    @nn.compact
    def __call__(self, x_t, logsnr, text, low_res=None, aug_logsnr=None, *, train=False):
      bad = jnp.all(text == text[:1])
      return nn.Dense(1, name='w')(x_t) + jnp.where(bad, jnp.nan, 0.0)

  objective = DiffusionObjective(Stage(4, 1, _Nan(), text_length=2, text_size=3), text_dropout=0.0)
  trainer = make_trainer(objective, _ADAM, 6, 0.9, make_mesh())
  checkpoints = Checkpoints(tmp_path, keep_every=2)
  with pytest.raises(InputError, match=r'^test: loss is nan at step 5; lower the learning rate'):
    fit(trainer, trainer.init(0), diverging, _context(), 6, batch_size=8, checkpoints=checkpoints,
        checkpoint_every=2, origin={}, writer=_Log(), what='test', log_every=1)
  checkpoints.close()
  assert Checkpoints(tmp_path).steps == [2, 4]
