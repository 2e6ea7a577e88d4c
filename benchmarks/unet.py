"""A U-Net of DeepFloyd IF's shape, ours beside diffusers', with the same weights, on the CPU of this machine.

    pip install -r benchmarks/requirements.txt && python -m benchmarks unet

It has 3.4M parameters, and draws images of 32x32 pixels from 16 tokens. What is timed: an evaluation, a step
of training by Adam, and drawing images with guidance by DDPM. PyTorch keeps channels last, as is fastest for
it; it is also compiled by its own compiler, where that runs.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from benchmarks.harness import Row, alternate
from imagenet_synth.cascade.diffusion_stage import (
  DiffusionObjective,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
)
from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core.devices import batch_sharding, local_replicated, make_mesh, over_devices
from imagenet_synth.diffusion.schedule import Schedule
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import make_trainer
from imagenet_synth.weights import deepfloyd

_SIZE, _NUM_TOKENS, _TEXT_SIZE, _NUM_STEPS, _GUIDANCE = 32, 16, 64, 50, 1.25
_CONFIG = {
  'act_fn': 'gelu',
  'addition_embed_type': 'text',
  'addition_embed_type_num_heads': 4,
  'attention_head_dim': 32,
  'block_out_channels': (32, 64, 128),
  'cross_attention_dim': 64,
  'cross_attention_norm': 'group_norm',
  'down_block_types': ('ResnetDownsampleBlock2D', 'SimpleCrossAttnDownBlock2D', 'SimpleCrossAttnDownBlock2D'),
  'encoder_hid_dim': _TEXT_SIZE,
  'encoder_hid_dim_type': 'text_proj',
  'in_channels': 3,
  'layers_per_block': 2,
  'mid_block_type': 'UNetMidBlock2DSimpleCrossAttn',
  'only_cross_attention': False,
  'out_channels': 6,
  'resnet_time_scale_shift': 'scale_shift',
  'sample_size': _SIZE,
  'up_block_types': ('SimpleCrossAttnUpBlock2D', 'SimpleCrossAttnUpBlock2D', 'ResnetUpsampleBlock2D'),
}


DEVICES = (1, 2)
"""The numbers of virtual devices that ours is tried with."""


def rows() -> Iterator[Row]:
  """Yields what is measured."""
  torch.manual_seed(0)
  theirs = UNet2DConditionModel(**_CONFIG).to(memory_format=torch.channels_last)
  network, params = _ours(theirs)
  stage = Stage(_SIZE, 3, network, schedule=Schedule('iddpm'), prediction='eps', learned_variance=True)
  yield _evaluation(stage, {'params': params}, theirs, 8)
  yield _training(stage, params, theirs, 8)
  yield _drawing(stage, {'params': params}, theirs, 16)


def _ours(theirs: UNet2DConditionModel) -> tuple[IFUNet, dict]:
  """Returns the same network, and its parameters."""
  with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    network = IFUNet(**deepfloyd.network_fields(folder))
    return network, deepfloyd.load(folder, network, 3, _TEXT_SIZE)


def _inputs(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns noisy images [B, H, W, 3] and text [B, L, D]."""
  rng = np.random.default_rng(0)
  shapes = (batch_size, _SIZE, _SIZE, 3), (batch_size, _NUM_TOKENS, _TEXT_SIZE)
  return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def _channels_first(images: np.ndarray) -> torch.Tensor:
  """Returns images as PyTorch has them, in memory as they were."""
  return torch.from_numpy(images).permute(0, 3, 1, 2)


def _compiled(function: Callable) -> dict[str, Callable]:
  """Returns a function, and what PyTorch's compiler makes of it, if it can here."""
  both = {'diffusers': function}
  with contextlib.suppress(Exception):
    compiled = torch.compile(function)
    compiled()
    both['diffusers, torch.compile'] = compiled
  return both


def _evaluation(stage: Stage, variables: dict, theirs: UNet2DConditionModel, batch_size: int) -> Row:
  images, text = _inputs(batch_size)
  x, tokens, steps = _channels_first(images), torch.from_numpy(text), torch.full((batch_size,), 500)
  evaluate = over_devices(
    lambda variables, x: stage.predict(variables, x['image'], x['logsnr'], x['text'], None, None)
  )
  batch = {'image': images, 'text': text, 'logsnr': np.zeros(batch_size, np.float32)}
  batch = jax.tree.map(lambda of: of.reshape(jax.local_device_count(), -1, *of.shape[1:]), batch)
  there = jax.device_put(variables, local_replicated())

  @torch.no_grad()
  def evaluate_theirs() -> object:
    return theirs(x, steps, tokens).sample

  ours = lambda: jax.block_until_ready(evaluate(there, batch))
  rates = alternate({'imagenet_synth': ours, **_compiled(evaluate_theirs)}, batch_size, 15)
  return Row(f"IF's U-Net, 3.4M, {_SIZE}x{_SIZE}, batch {batch_size}: evaluation", 'images/s', rates)


def _training(stage: Stage, params: dict, theirs: UNet2DConditionModel, batch_size: int) -> Row:
  images, text = _inputs(batch_size)
  mesh = make_mesh()
  trainer = make_trainer(DiffusionObjective(stage, _TEXT_SIZE), Optimizer('adam', 1e-4), 1000, 0.0, mesh)
  state = trainer.init(0)
  pixels = np.clip(128 + 64 * images, 0, 255).astype(np.uint8)
  batch = jax.device_put({'image': pixels, 'text': text}, batch_sharding(mesh))
  context = {'null': jnp.zeros((_NUM_TOKENS, _TEXT_SIZE))}

  def step() -> None:
    nonlocal state
    state, metrics = trainer.step(state, batch, context)
    jax.block_until_ready(metrics)

  x_0, tokens = _channels_first(images), torch.from_numpy(text)
  optimizer = torch.optim.Adam(theirs.parameters(), 1e-4)
  scheduler = _scheduler()

  def step_theirs() -> None:
    noise, steps = torch.randn_like(x_0), torch.randint(0, 1000, (batch_size,))
    predicted = theirs(scheduler.add_noise(x_0, noise, steps), steps, tokens).sample
    loss = torch.nn.functional.mse_loss(predicted[:, :3], noise)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

  rates = alternate({'imagenet_synth': step, 'diffusers': step_theirs}, batch_size, 9)
  return Row(f"IF's U-Net, batch {batch_size}: training step, Adam", 'images/s', rates)


def _drawing(stage: Stage, variables: dict, theirs: UNet2DConditionModel, batch_size: int) -> Row:
  _, text = _inputs(batch_size)
  null = np.zeros((_NUM_TOKENS, _TEXT_SIZE), np.float32)
  settings = SamplerSettings(num_steps=_NUM_STEPS, guidance=_GUIDANCE, logvar=None)
  trained = TrainedStage(stage, jax.device_put(variables, local_replicated()), settings)
  cascade = Cascade([trained], TextStates(text, null), 0, batch_size)
  tokens, nothing = torch.from_numpy(text), torch.from_numpy(np.broadcast_to(null, text.shape).copy())
  scheduler = _scheduler()
  scheduler.set_timesteps(_NUM_STEPS)

  @torch.no_grad()
  def draw_theirs() -> None:
    x = torch.randn(batch_size, 3, _SIZE, _SIZE).contiguous(memory_format=torch.channels_last)
    both = torch.cat([nothing, tokens])
    for step in scheduler.timesteps:
      without, of_text = theirs(torch.cat([x, x]), step, both).sample.chunk(2)
      (eps, _), (eps_of_text, variance) = without.split(3, 1), of_text.split(3, 1)
      guided = eps + _GUIDANCE * (eps_of_text - eps)
      x = scheduler.step(torch.cat([guided, variance], 1), step, x).prev_sample

  ours = lambda: list(cascade.sample(np.arange(batch_size), np.zeros(batch_size, int)))
  rates = alternate({'imagenet_synth': ours, 'diffusers': draw_theirs}, batch_size, 3)
  what = f"IF's U-Net, batch {batch_size}: {_NUM_STEPS} steps of DDPM, guidance {_GUIDANCE}"
  return Row(what, 'images/s', rates)


def _scheduler() -> DDPMScheduler:
  """Returns IF's."""
  return DDPMScheduler(
    beta_schedule='squaredcos_cap_v2', variance_type='learned_range', thresholding=True, sample_max_value=1.5
  )
