"""Published pretrainings of vision transformers: MAE and DINO with a ViT-S/16."""

from jobs.config.published.entry import IMAGENET, Published
from jobs.config.recipe import PretrainConfig
from ssl_core.augmentations import ContrastiveAugmentation
from ssl_core.optim import Optim
from ssl_core.tasks.dino import DINO
from ssl_core.tasks.mae import MAE

IMAGENETTE = "imagenette"  # to be given with --data

TRANSFORMERS = {
    "mae-imagenette-vit-small": Published(
        recipe=PretrainConfig(
            task=MAE.Config(
                batch=256,
                loader_min_area=1.0,
                decoder_dim=512,
                decoder_depth=8,
                optim=Optim(optimizer="adamw", lr=1.5e-4, weight_decay=0.05, warmup=0.1),
            ),
            data=IMAGENETTE,
            size=224,
            encoder="vit_small_patch16_224",
            epochs=200.0,
        ),
        source="MAE (He et al. 2022) with a ViT-S/16 on Imagenette, stable-pretraining's table of results",
        images=9_469,
        macs=6.49e15,
        reaches="Imagenette linear accuracy 84.1 %, by 20 nearest neighbors 72.1 % after 200 epochs",
        differs="crops of the largest square; the paper's decoder and base learning rate; AdamW's second beta is "
        "0.999 instead of 0.95; learned position embeddings in the encoder",
    ),
    "dino-imagenet-vit-small": Published(
        recipe=PretrainConfig(
            task=DINO.Config(
                batch=512,
                loader_min_area=1.0,
                local_crops=8,
                hidden_dim=2048,
                projection_dim=256,
                prototypes=65_536,
                teacher_momentum=0.996,
                views=ContrastiveAugmentation(crop=1.0, min_area=0.4),
                optim=Optim(optimizer="adamw", lr=1e-3, weight_decay=0.04, warmup=0.1, clip_grad_norm=3.0),
            ),
            data=IMAGENET,
            size=224,
            encoder="vit_small_patch16_224",
            epochs=100.0,
        ),
        source="DINO with a ViT-S/16 on ImageNet, Caron et al. 2021, by lightly's benchmark page",
        images=1_281_167,
        macs=7.20e18,
        reaches="ImageNet linear accuracy 73.3 %, by nearest neighbors 67.5 % after 100 epochs",
        differs="no blur, no solarization and no drop path, a constant weight decay and temperature, the last layer is "
        "trained from the first step on",
    ),
}
