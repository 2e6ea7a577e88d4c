"""The paper's classifiers: `model` sections of classify jobs, by name. See recipes.py for their training."""


def resnet(*stage_sizes, **more):
  return dict(
    type='resnet', num_classes=1000, stage_sizes=stage_sizes, pixels='imagenet', dtype='bfloat16', **more
  )


def resnet_rs(*stage_sizes):
  """Bello et al. (2021) with the swish of the model garden; dropout is that of recipes.py."""
  return resnet(
    *stage_sizes, stem='deep', squeeze_ratio=0.25, pooled_shortcut=True, dropout_rate=0.25, activation='swish'
  )


def vit(width, depth, num_heads, **more):
  return dict(
    type='vit',
    num_classes=1000,
    patch_size=16,
    width=width,
    depth=depth,
    num_heads=num_heads,
    dtype='bfloat16',
    **more,
  )


RESNET_50, RESNET_101, RESNET_152 = resnet(3, 4, 6, 3), resnet(3, 4, 23, 3), resnet(3, 8, 36, 3)
RESNET_RS_50, RESNET_RS_101 = resnet_rs(3, 4, 6, 3), resnet_rs(3, 4, 23, 3)
RESNET_RS_152 = resnet_rs(3, 8, 36, 3)
# Beyer et al. (2022)
VIT_S16 = vit(384, 12, 6, pooling='average', positions='waves')
# Touvron et al. (2021); of the large one, which they do not have, stochastic depth is the model garden's
DEIT_S, DEIT_B, DEIT_L = (
  vit(*sizes, pixels='imagenet', drop_path_rate=0.1)
  for sizes in ((384, 12, 6), (768, 12, 12), (1024, 24, 16))
)
