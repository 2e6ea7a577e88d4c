"""The loop on a problem of a few numbers: what resuming gives; what is saved, logged, refused."""

import dataclasses
import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from imagenet_synth.core.checkpoint import Checkpoints, load_ema
from imagenet_synth.core.devices import AXES, make_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import Stopped
from imagenet_synth.train.loop import fit, restore_or_init
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_NUM_STEPS = 6


@dataclasses.dataclass(frozen=True)
class _NoisyLine:
  """y = x w with noise on x that is drawn in the step; counts its steps as a batch statistic."""

  def init(self, key):
    w = jax.random.normal(key, (4, 2))
    return {
      'params': {'w': nn.LogicallyPartitioned(w, ('embed', 'mlp'))},
      'statistics': {'count': jnp.zeros(())},
    }

  def loss(self, variables, batch, context, key):
    x = batch['x'] + 0.1 * jax.random.normal(key, batch['x'].shape)
    # as a flax module would read it: cut over devices, it is gathered now
    w = nn.unbox(variables['params']['w'])
    loss = jnp.mean(jnp.square(x @ w - context['y'][batch['row']]))
    count = variables['statistics']['count'] + 1
    return loss, ({'loss': loss}, {'statistics': {'count': count}})


def _batches(start, stop, rows):
  for step in range(start, stop):
    rng = np.random.default_rng(step)
    yield {
      'x': rng.normal(size=(8, 4)).astype(np.float32)[rows],
      'row': rng.integers(0, 3, 8).astype(np.int32)[rows],
    }


_CONTEXT = {'y': np.arange(6, dtype=np.float32).reshape(3, 2)}


class _Log:
  """A writer that keeps what it is given."""

  def __init__(self):
    self.scalars = {}

  def write_scalars(self, step, scalars):
    assert step not in self.scalars
    self.scalars[step] = scalars

  def flush(self):
    pass


def _fit(
  path,
  *,
  stop_after=None,
  batches=_batches,
  log=None,
  mesh=None,
  optimizer='adafactor',
  checkpoint_every=2,
  log_every=1,
  on_checkpoint=None,
):
  """Trains with new Checkpoints; stop_after: is interrupted after that step's save."""
  trainer = make_trainer(
    _NoisyLine(), Optimizer(optimizer, 0.1, 'cosine'), _NUM_STEPS, 0.9, mesh or make_mesh(fsdp=2)
  )
  checkpoints = Checkpoints(path, keep_every=checkpoint_every)

  def saved(step, state):
    if on_checkpoint is not None:
      on_checkpoint(step, state)
    if step == stop_after:
      raise KeyboardInterrupt

  try:
    state = restore_or_init(trainer, checkpoints, lambda: trainer.init(3))
    return jax.device_get(
      fit(
        trainer,
        state,
        batches,
        _CONTEXT,
        _NUM_STEPS,
        batch_size=8,
        checkpoints=checkpoints,
        checkpoint_every=checkpoint_every,
        origin={'job': 'test'},
        writer=log or _Log(),
        what='test',
        on_checkpoint=saved,
        log_every=log_every,
      )
    )
  finally:
    checkpoints.close()


def _steps(path):
  checkpoints = Checkpoints(path)
  checkpoints.close()
  return checkpoints.steps


def _assert_equal(state, expected, **tolerance):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({'rtol': 0} | tolerance)), state, expected)


@pytest.mark.parametrize('optimizer', ['adafactor', 'adam', 'momentum'])
def test_resumed_training_equals_uninterrupted_training(optimizer, tmp_path):
  logs = [_Log(), _Log(), _Log()]
  fit_3 = lambda name, log, **kwargs: _fit(
    tmp_path / name, log=log, optimizer=optimizer, checkpoint_every=3, **kwargs
  )
  whole = fit_3('whole', logs[0])
  with pytest.raises(KeyboardInterrupt):
    fit_3('cut', logs[1], stop_after=3)
  resumed = fit_3('cut', logs[2])
  # all of it: step, seed, params, ema, extra, opt_state
  _assert_equal(resumed, whole)
  assert resumed.step == 6 and resumed.extra['statistics']['count'] == 6
  assert list(logs[1].scalars) == [1, 2, 3] and list(logs[2].scalars) == [4, 5, 6]
  assert logs[1].scalars | logs[2].scalars == logs[0].scalars


def test_a_finished_run_gives_its_state_again_and_does_nothing(tmp_path):
  whole = _fit(tmp_path)
  asked, log = [], _Log()

  def no_batches(start, stop, rows):
    asked.append((start, stop))
    return _batches(start, stop, rows)

  _assert_equal(_fit(tmp_path, batches=no_batches, log=log), whole)
  assert asked == [(6, 6)] and not log.scalars


def test_a_run_may_resume_on_another_mesh(tmp_path):
  whole = _fit(tmp_path / 'whole')
  with pytest.raises(KeyboardInterrupt):
    _fit(tmp_path / 'cut', stop_after=4)
  one = jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])
  _assert_equal(_fit(tmp_path / 'cut', mesh=one), whole, rtol=1e-4)


def test_training_learns(tmp_path):
  log = _Log()
  _fit(tmp_path, log=log, optimizer='adam')
  losses = [scalars['loss'] for scalars in log.scalars.values()]
  assert losses[-1] < losses[0]


def test_checkpoints_are_saved_at_their_steps_and_at_the_end(tmp_path):
  saved = {}

  def on_checkpoint(step, state):
    assert state.extra['statistics']['count'] == step
    saved[step] = jax.device_get(state.sampling_variables)

  state = _fit(tmp_path, checkpoint_every=4, on_checkpoint=on_checkpoint)
  assert list(saved) == [4, 6] == _steps(tmp_path)
  _assert_equal(saved[6], state.sampling_variables)
  like = jax.eval_shape(lambda: state.sampling_variables)
  for step in saved:
    _assert_equal(load_ema(tmp_path, step, like), saved[step])


@pytest.mark.parametrize(
  'log_every, checkpoint_every, expected',
  [(1, 6, [1, 2, 3, 4, 5, 6]), (2, 6, [2, 4, 6]), (4, 3, [3, 4, 6]), (50, 50, [6])],
)
def test_metrics_are_written_every_so_often_and_with_each_checkpoint(
  log_every, checkpoint_every, expected, tmp_path
):
  log = _Log()
  _fit(tmp_path, log=log, log_every=log_every, checkpoint_every=checkpoint_every)
  assert list(log.scalars) == expected
  assert all(set(scalars) == {'loss', 'grad_norm'} for scalars in log.scalars.values())


def _diverging_at(bad_step):
  def batches(start, stop, rows):
    for step, batch in enumerate(_batches(start, stop, rows), start + 1):
      yield {**batch, 'x': batch['x'] * np.nan} if step == bad_step else batch

  return batches


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
  log = _Log()
  with pytest.raises(InputError, match=r'^test: (loss|grad_norm) is nan at step 5; .*') as error:
    _fit(tmp_path, batches=_diverging_at(5), log=log)
  assert '\n' not in str(error.value)
  assert _steps(tmp_path) == [2, 4] and list(log.scalars) == [1, 2, 3, 4]
  # and the run goes on from there
  _assert_equal(_fit(tmp_path), _fit(tmp_path.with_name('whole')))


def test_what_diverged_between_two_logs_is_not_saved(tmp_path):
  with pytest.raises(InputError, match='is nan at step 4'):
    _fit(tmp_path, batches=_diverging_at(3), log_every=50)
  assert _steps(tmp_path) == [2]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(number, tmp_path):
  class KillingLog(_Log):
    def write_scalars(self, step, scalars):
      super().write_scalars(step, scalars)
      if step == 2:
        os.kill(os.getpid(), number)

  before = signal.getsignal(number)
  with pytest.raises(Stopped, match='test: told to stop; step 3 of 6 is saved, the same command') as stopped:
    _fit(tmp_path, log=KillingLog())
  assert stopped.value.signal == number and signal.getsignal(number) is before
  assert _steps(tmp_path) == [2, 3]
  _assert_equal(_fit(tmp_path), _fit(tmp_path.with_name('whole')))
  # 3 is no multiple of checkpoint_every: it was kept as long as it was the latest
  assert _steps(tmp_path) == [2, 4, 6]


def test_progress_counts_what_an_earlier_run_did(tmp_path, capsys):
  with pytest.raises(KeyboardInterrupt):
    _fit(tmp_path, stop_after=4)
  capsys.readouterr()
  _fit(tmp_path)
  first, *_, last = capsys.readouterr().err.split('\r')[1:]
  assert '32/48' in first and '48/48' in last
  # beside the rate of the steps, that of the input pipeline
  assert 'img/s, loss=' in last and 'input=' in last
