"""How ImageNet classifiers are trained: `recipe` sections of classify jobs, by name.

Azizi et al. (2023) train known classifiers (Table 3); that they did so as each one's authors say is
ours to assume. Epochs are over the whole training set, real and synthetic images together;
`dict(RECIPE, epochs=None, num_steps=...)` holds the number of steps instead. Dropout and stochastic
depth are settings of the model, the size of images one of the job; both are named here.

Ours everywhere: Nesterov's momentum; the learning rate ends at 0; crops are of the square that is
kept of an image; RandAugment has the operations of its paper; weight decay is of kernels alone.

cas: CAS (Ravuri & Vinyals, 2019): ResNet-50 on 224 pixels.
resnet: the same with smoothed labels: ResNet-50, 101 and 152 on 224 pixels. The smoothing is ours,
  as the paper has 76.39 of real images where CAS has 73.09.
resnet_rs: Bello et al. (2021): ResNet-RS with dropout 0.25 and no stochastic depth. The warm-up and
  RandAugment's magnitude are those of their configurations in TensorFlow's model garden: 10 for
  ResNet-RS-50 on 160 pixels, 15 for ResNet-RS-152 on 224.
vit_s16: Beyer et al. (2022): ViT-S/16 on 224 pixels, 76.5 after 90 epochs, 80.0 after 300; the
  paper has 79.89. Their weight decay of 1e-4 is not multiplied by the learning rate; ours is.
deit: Touvron et al. (2021): DeiT on 224 pixels, stochastic depth 0.1. RandAugment is "9/0.5", the
  magnitude and its deviation; their code leaves out each layer with probability 1/2. They also
  repeat each image three times in a batch, and end at a learning rate of 1e-5.
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

RESNET = dict(CAS, label_smoothing=0.1)

RESNET_RS = dict(
  # 0.1 for each 256 images of a batch
  optimizer=dict(
    name='momentum',
    learning_rate=0.1 * 4096 / 256,
    schedule='cosine',
    warmup=5 / 350,
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
    warmup=5 / 300,
    weight_decay=0.05,
    decay_all=False,
  ),
  epochs=300,
  batch_size=1024,
  random_resized_crop=True,
  flip=True,
  randaugment=dict(num_layers=2, magnitude=9, deviation=0.5, probability=0.5),
  erasing=0.25,
  mixup_alpha=0.8,
  cutmix_alpha=1.0,
  label_smoothing=0.1,
)

RECIPES = dict(cas=CAS, resnet=RESNET, resnet_rs=RESNET_RS, vit_s16=VIT_S16, deit=DEIT)
