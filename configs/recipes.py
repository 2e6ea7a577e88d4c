"""How ImageNet classifiers are trained: `recipe` sections of classify jobs, by name.

Azizi et al. (2023) train known classifiers (Table 3); that they did so as each one's authors say is
ours to assume. Epochs are over the whole training set, real and synthetic images together;
`dict(RECIPE, epochs=None, num_steps=...)` holds the number of steps instead. Dropout and stochastic
depth are settings of the model, the size of images one of the job; both are named here.

Random resized crops are cut out of images as they are stored: photos at their own size, samples at the size
that a job reads them at.

docs/recipes.md has each row of Table 3, its source, and in what we differ.

cas: CAS (Ravuri & Vinyals, 2019): ResNet-50 on 224 pixels.
resnet50, resnet: what TensorFlow's model garden has for ResNet-50, and for ResNet-101 and 152, on 224
  pixels: its results are the paper's real ones (78.3 and 78.7 there, 78.15 and 78.59 in the paper).
resnet_rs: Bello et al. (2021): ResNet-RS with dropout 0.25 and no stochastic depth. RandAugment's magnitude
  is 10 for ResNet-RS-50 on 160 pixels, 15 for the larger ones.
vit_s16: Beyer et al. (2022): ViT-S/16 on 224 pixels, 76.5 after 90 epochs, 80.0 after 300; the paper has
  79.89. Their weight decay of 1e-4 is not multiplied by the learning rate; ours is.
deit: Touvron et al. (2021): DeiT on 224 pixels, stochastic depth 0.1. RandAugment is "9/0.5", the magnitude
  and its deviation; their code leaves out each layer with probability 1/2.
deit_384: theirs for 384 pixels, from the weights for 224.
deit_l: what the model garden has for ViT-L/16 on 224 pixels: 82.2, in the paper 82.22.
"""

CAS = dict(
  optimizer=dict(
    name='momentum',
    learning_rate=0.4,
    schedule='step',
    warmup=5 / 90,
    drops=(30 / 90, 60 / 90, 80 / 90),
    weight_decay=1e-4,
    decay_all=False,
  ),
  epochs=90,
  batch_size=1024,
  random_resized_crop=True,
  flip=True,
)

# 0.1 for each 256 images of a batch
RESNET_50 = dict(
  CAS,
  optimizer=dict(CAS['optimizer'], learning_rate=0.1 * 4096 / 256, nesterov=False),
  batch_size=4096,
  label_smoothing=0.1,
)
RESNET = dict(
  RESNET_50,
  optimizer=dict(
    name='momentum',
    learning_rate=0.1 * 4096 / 256,
    schedule='cosine',
    warmup=5 / 200,
    nesterov=False,
    weight_decay=1e-4,
    decay_all=False,
  ),
  epochs=200,
)

RESNET_RS = dict(
  # 0.1 for each 256 images of a batch
  optimizer=dict(
    name='momentum',
    learning_rate=0.1 * 4096 / 256,
    schedule='cosine',
    warmup=5 / 350,
    nesterov=False,
    weight_decay=4e-5,
    decay_all=False,
  ),
  epochs=350,
  batch_size=4096,
  random_resized_crop=True,
  flip=True,
  randaugment=dict(num_layers=2, magnitude=10),
  label_smoothing=0.1,
  ema_decay=0.9999,
)
RESNET_RS_LARGE = dict(RESNET_RS, randaugment=dict(num_layers=2, magnitude=15))

VIT_S16 = dict(
  optimizer=dict(
    name='adamw',
    learning_rate=1e-3,
    schedule='cosine',
    warmup_steps=10_000,
    weight_decay=1e-4 / 1e-3,
    decay_all=False,
    clip_norm=1.0,
  ),
  epochs=300,
  batch_size=1024,
  random_resized_crop=True,
  least_area=0.05,
  flip=True,
  randaugment=dict(num_layers=2, magnitude=10),
  mixup_alpha=0.2,
)

DEIT = dict(
  # 5e-4 for each 512 images of a batch
  optimizer=dict(
    name='adamw',
    learning_rate=5e-4 * 1024 / 512,
    schedule='cosine',
    end_learning_rate=1e-5,
    warmup=5 / 300,
    weight_decay=0.05,
    decay_all=False,
  ),
  epochs=300,
  batch_size=1024,
  repeats=3,
  random_resized_crop=True,
  interpolation='bicubic',
  flip=True,
  randaugment=dict(num_layers=2, magnitude=9, deviation=0.5, probability=0.5),
  erasing=0.25,
  mixup_alpha=0.8,
  cutmix_alpha=1.0,
  label_smoothing=0.1,
)

# of the model garden's ViT-L/16; DeiT has no large one
DEIT_L = dict(
  DEIT,
  optimizer=dict(DEIT['optimizer'], learning_rate=4e-3, end_learning_rate=0.0),
  batch_size=4096,
  repeats=1,
  interpolation='bilinear',
  randaugment=dict(num_layers=2, magnitude=9),
  erasing=0.0,
)

DEIT_384 = dict(
  DEIT,
  optimizer=dict(
    DEIT['optimizer'], learning_rate=5e-6, end_learning_rate=5e-6, warmup=5 / 30, weight_decay=1e-8
  ),
  epochs=30,
  batch_size=512,
)

RECIPES = dict(
  cas=CAS,
  resnet50=RESNET_50,
  resnet=RESNET,
  resnet_rs=RESNET_RS,
  resnet_rs_large=RESNET_RS_LARGE,
  vit_s16=VIT_S16,
  deit=DEIT,
  deit_384=DEIT_384,
  deit_l=DEIT_L,
)
