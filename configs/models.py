"""The paper's classifiers: `model` sections of classify jobs, by name. See recipes.py for their training."""


def resnet(*stage_sizes, **more):
  return dict(type='resnet', num_classes=1000, stage_sizes=stage_sizes, dtype='bfloat16', **more)


def resnet_rs(*stage_sizes):
  """Bello et al. (2021); dropout is that of recipes.py."""
  return resnet(*stage_sizes, stem='deep', squeeze_ratio=0.25, pooled_shortcut=True, dropout_rate=0.25)


def vit(width, depth, num_heads, drop_path_rate=0.0):
  return dict(
    type='vit',
    num_classes=1000,
    patch_size=16,
    width=width,
    depth=depth,
    num_heads=num_heads,
    drop_path_rate=drop_path_rate,
    dtype='bfloat16',
  )


RESNET_50, RESNET_101, RESNET_152 = resnet(3, 4, 6, 3), resnet(3, 4, 23, 3), resnet(3, 8, 36, 3)
RESNET_RS_50, RESNET_RS_101 = resnet_rs(3, 4, 6, 3), resnet_rs(3, 4, 23, 3)
RESNET_RS_152 = resnet_rs(3, 8, 36, 3)
VIT_S16 = vit(384, 12, 6)
# Touvron et al. (2021): stochastic depth 0.1; of the large one, which they do not have, ours
DEIT_S, DEIT_B, DEIT_L = vit(384, 12, 6, 0.1), vit(768, 12, 12, 0.1), vit(1024, 24, 16, 0.4)
