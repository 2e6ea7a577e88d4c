"""The loop on a problem of a few numbers: what resuming gives; what is saved, logged, refused."""

import contextlib
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
from imagenet_synth.core.stopping import Due, Stopped
from imagenet_synth.train import loop
from imagenet_synth.train.loop import disk_bytes, fit
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer

_NUM_STEPS = 6
_METRICS = {'loss', 'grad_norm', 'update_norm', 'param_norm', 'learning_rate'}


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
    self.scalars, self.speeds, self.starts = {}, {}, []

  def write_scalars(self, step, scalars):
    assert step not in self.scalars
    self.scalars[step] = scalars

  def write_speed(self, step, speed):
    self.speeds[step] = speed

  def flush(self):
    pass

  def close(self):
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
  save_minutes=0,
  on_checkpoint=lambda step, state: None,
):
  """Trains with new Checkpoints; returns the state at the end, None if there was nothing to do.

  stop_after: is killed after that step's snapshot, with the states that are saved by then.
  """
  trainer = make_trainer(
    _NoisyLine(), Optimizer(optimizer, 0.1, 'cosine'), _NUM_STEPS, 0.9, mesh or make_mesh(fsdp=2)
  )
  checkpoints, last = Checkpoints(path), []

  def saved(step, state, writer):
    assert writer is log
    on_checkpoint(step, state)
    last[:] = [jax.device_get(state)]
    if step == stop_after:
      raise KeyboardInterrupt

  log = log or _Log()
  try:
    variables = fit(
      trainer,
      lambda: trainer.init(3),
      batches,
      _CONTEXT,
      _NUM_STEPS,
      batch_size=8,
      checkpoints=checkpoints,
      checkpoint_every=checkpoint_every,
      origin={'job': 'test'},
      make_writer=lambda start: log.starts.append(start) or log,
      what='test',
      on_checkpoint=saved,
      save_minutes=save_minutes,
      log_every=log_every,
    )
  finally:
    checkpoints.close()
  if not last:
    return None
  _assert_equal(jax.device_get(variables), last[0].sampling_variables)
  return last[0]


def _steps(path):
  """The steps of the states to resume from, and of the snapshots."""
  return [
    sorted(int(folder.name) for folder in (path / name).glob('*')) for name in ('resume', 'checkpoints')
  ]


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
  assert logs[2].starts == [3]
  assert resumed.step == 6 and resumed.extra['statistics']['count'] == 6
  assert list(logs[1].scalars) == [1, 2, 3] and list(logs[2].scalars) == [4, 5, 6]
  assert logs[1].scalars | logs[2].scalars == logs[0].scalars


def test_a_finished_run_gives_its_state_again_and_does_nothing(tmp_path):
  _fit(tmp_path)
  log = _Log()
  assert _fit(tmp_path, batches=None, log=log) is None
  assert not log.scalars and not log.starts and _steps(tmp_path) == [[], [2, 4, 6]]


def test_killed_between_its_last_snapshot_and_its_end_a_run_is_not_trained_again(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _fit(tmp_path, stop_after=6)
  assert _steps(tmp_path) == [[4, 5], [2, 4, 6]]
  assert _fit(tmp_path, batches=None) is None and _steps(tmp_path) == [[], [2, 4, 6]]


def test_a_run_that_is_killed_before_a_state_is_saved_begins_anew(tmp_path):
  whole, log = _fit(tmp_path / 'whole'), _Log()
  with pytest.raises(KeyboardInterrupt):
    _fit(tmp_path / 'cut', stop_after=4, save_minutes=10)
  assert _steps(tmp_path / 'cut') == [[], [2, 4]]
  _assert_equal(_fit(tmp_path / 'cut', log=log), whole)
  assert log.starts == [0]


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


def test_snapshots_are_saved_at_their_steps_and_at_the_end(tmp_path):
  saved = {}

  def on_checkpoint(step, state):
    assert state.extra['statistics']['count'] == step
    saved[step] = jax.device_get(state.sampling_variables)

  state = _fit(tmp_path, checkpoint_every=4, on_checkpoint=on_checkpoint)
  assert list(saved) == [4, 6] and _steps(tmp_path) == [[], [4, 6]]
  _assert_equal(saved[6], state.sampling_variables)
  like = jax.eval_shape(lambda: state.sampling_variables)
  for step in saved:
    _assert_equal(load_ema(tmp_path / 'checkpoints', step, like), saved[step])


@pytest.mark.parametrize(
  'log_every, checkpoint_every, expected',
  [(1, 6, [1, 2, 3, 4, 5, 6]), (2, 6, [2, 4, 6]), (4, 3, [3, 4, 6]), (50, 50, [6])],
)
def test_metrics_are_written_every_so_often_and_with_each_snapshot(
  log_every, checkpoint_every, expected, tmp_path
):
  log = _Log()
  _fit(tmp_path, log=log, log_every=log_every, checkpoint_every=checkpoint_every)
  assert list(log.scalars) == expected
  assert all(set(scalars) == _METRICS for scalars in log.scalars.values())


def test_the_speed_is_told_with_the_metrics(tmp_path):
  log = _Log()
  _fit(tmp_path, log=log, log_every=2, checkpoint_every=6)
  assert list(log.speeds) == list(log.scalars)
  for speed in log.speeds.values():
    assert 0 < speed['step_seconds'] and 0 <= speed['input_share'] < 1
    assert speed['images_per_second'] == pytest.approx(8 / speed['step_seconds'])
    # two matrix products of [8, 4] and [4, 2], for the loss and the gradient, on 8 devices
    num_flops = 2 * 2 * 8 * 4 * 2
    assert speed['teraflops'] == pytest.approx(num_flops / speed['step_seconds'] / 8 / 1e12)


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
  assert _steps(tmp_path) == [[3, 4], [2, 4]] and list(log.scalars) == [1, 2, 3, 4]
  # and the run goes on from there
  _assert_equal(_fit(tmp_path), _fit(tmp_path / 'whole'))


@pytest.mark.parametrize('save_minutes, step, kept', [(0, 3, [[1, 2], [2]]), (10, 4, [[], [2]])])
def test_what_diverged_between_two_logs_is_not_saved(save_minutes, step, kept, tmp_path):
  with pytest.raises(InputError, match=f'is nan at step {step}'):
    _fit(tmp_path, batches=_diverging_at(3), log_every=50, save_minutes=save_minutes)
  assert _steps(tmp_path) == kept


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(number, tmp_path):
  class KillingLog(_Log):
    def write_scalars(self, step, scalars):
      super().write_scalars(step, scalars)
      if step == 2:
        os.kill(os.getpid(), number)

  before = signal.getsignal(number)
  with pytest.raises(Stopped, match='test: told to stop; step 3 of 6 is saved, the same command') as stopped:
    _fit(tmp_path, log=KillingLog(), save_minutes=10)
  assert stopped.value.signal == number and signal.getsignal(number) is before
  assert _steps(tmp_path) == [[3], [2]]
  _assert_equal(_fit(tmp_path), _fit(tmp_path / 'whole'))
  assert _steps(tmp_path) == [[], [2, 4, 6]]


def test_few_steps_are_in_flight(tmp_path, monkeypatch):
  """The devices are not given the next step before one that came some steps earlier is done."""
  waited = []
  monkeypatch.setattr(loop, '_STEPS_IN_FLIGHT', 2)
  original = jax.block_until_ready
  monkeypatch.setattr(jax, 'block_until_ready', lambda x: waited.append(x) or original(x))
  # which waits for steps, too, to learn how long one takes
  monkeypatch.setattr(loop.SaveClock, 'due', lambda self, step, metrics: Due(False, False))
  log = _Log()
  _fit(tmp_path, log=log)
  losses = [float(x['loss']) for x in waited if isinstance(x, dict) and 'loss' in x]
  # of six steps, but for the last two
  assert losses == [log.scalars[step]['loss'] for step in (1, 2, 3, 4)]


def test_progress_counts_what_an_earlier_run_did(tmp_path, capsys):
  with pytest.raises(KeyboardInterrupt):
    _fit(tmp_path, stop_after=4)
  capsys.readouterr()
  _fit(tmp_path)
  first, *_, last = capsys.readouterr().err.splitlines()
  assert '32/48' in first and '48/48' in last
  # beside the rate of the steps, that of the input pipeline
  assert 'img/s, loss=' in last and 'input=' in last


@dataclasses.dataclass(frozen=True)
class _ManyNumbers:
  """Weights that take room on a disk, and a loss that moves them."""

  def init(self, key):
    return {'params': {'w': jax.random.normal(key, (256, 128)), 'b': jax.random.normal(key, (128,))}}

  def loss(self, variables, batch, context, key):
    params = variables['params']
    loss = jnp.mean(jnp.square(batch['x'] @ params['w'] + params['b'][None]))
    return loss, ({'loss': loss}, {})


def _bytes_below(path):
  """Of all files; some may go while they are counted."""
  total = 0
  for folder, _, names in os.walk(path):
    for name in names:
      with contextlib.suppress(FileNotFoundError):
        total += os.stat(os.path.join(folder, name)).st_size
  return total


@pytest.mark.slow
def test_the_disk_of_a_run_of_100_snapshots_is_what_was_predicted(tmp_path):
  """As of fine-tuning: rounded snapshots, and a state now and then, here each half second."""
  num_steps, every, sizes, dtype = 200, 2, [], 'bfloat16'
  trainer = make_trainer(_ManyNumbers(), Optimizer('adam', 0.1), num_steps, 0.9, make_mesh())
  predicted = disk_bytes(trainer.abstract, num_steps, every, dtype)
  num_params = 256 * 128 + 128
  assert predicted.kept == 100 * num_params * 2
  # weights, average and two moments, in two states and one that is being written; a few numbers beside them
  assert predicted.peak - predicted.kept == pytest.approx(3 * 4 * num_params * 4, rel=1e-3)
  states = []

  def measure(step, state, writer):
    # while the latest ones are being written
    sizes.append(_bytes_below(tmp_path) / (predicted.peak - (1 - step / num_steps) * predicted.kept))
    states.append(len(list((tmp_path / 'resume').iterdir())))

  fit(
    trainer,
    lambda: trainer.init(0),
    lambda start, stop, rows: (
      {'x': np.random.default_rng(step).normal(size=(8, 256)).astype(np.float32)[rows]}
      for step in range(start, stop)
    ),
    {},
    num_steps,
    batch_size=8,
    checkpoints=Checkpoints(tmp_path, dtype),
    checkpoint_every=every,
    origin={},
    make_writer=lambda start: _Log(),
    what='test',
    on_checkpoint=measure,
    save_minutes=0.5 / 60,
  )
  print('on the way', min(sizes), max(sizes), 'kept', _bytes_below(tmp_path) / predicted.kept)
  assert len(sizes) == 100 and 2 <= max(states) <= 3
  assert max(sizes) < 1.1
  assert 0.8 < _bytes_below(tmp_path) / predicted.kept < 1.1
  assert _steps(tmp_path) == [[], list(range(2, 201, 2))]
