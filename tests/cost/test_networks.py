"""Networks whose parameters and operations others have counted."""

import pytest

from imagenet_synth.cost import networks
from imagenet_synth.weights.public import PUBLIC_NETWORKS


@pytest.mark.parametrize(
  'name, num_params, gflops', [('resnet50', 25_557_032, 8.2), ('vit_s16', 22_050_664, 9.2)]
)
def test_imported_classifiers_cost_what_is_known_of_them(name, num_params, gflops):
  """At 224x224; torchvision and timm count a multiplication and an addition as one."""
  network = networks.public_evaluation(PUBLIC_NETWORKS[name])
  assert network.num_params == num_params
  assert network.profile.flops / 1e9 == pytest.approx(gflops, rel=0.02)
