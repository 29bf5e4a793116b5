"""Published pretrainings by tasks that predict what was done to an image or what is missing in it, and by PIRL."""

from jobs.config.published.entry import IMAGENET, Published
from jobs.config.recipe import PretrainConfig
from ssl_core.augmentations import ContrastiveAugmentation
from ssl_core.memory_bank import MemoryOptions
from ssl_core.optim import Optim
from ssl_core.tasks.colorize import Colorize
from ssl_core.tasks.context import Context
from ssl_core.tasks.jigsaw import Jigsaw
from ssl_core.tasks.pirl import PIRL
from ssl_core.tasks.rotnet import RotNet

VISSL_STEPS = Optim(
    optimizer="momentum", lr=0.1, weight_decay=1e-4, warmup=0.0, lr_milestones=(30 / 105, 60 / 105, 90 / 105, 100 / 105)
)

PREDICTIVE = {
    "rotnet-cifar10-nin": Published(
        recipe=PretrainConfig(
            task=RotNet.Config(
                batch=128,
                crop=0.875,
                optim=Optim(lr=0.1, weight_decay=5e-4, warmup=0.0, lr_milestones=(0.3, 0.6, 0.8), lr_gamma=0.2),
            ),
            data="cifar10",
            encoder="nin",
            epochs=200.0,
        ),
        source="RotNet with four NIN blocks on CIFAR-10, Gidaris et al. 2018, tables 1 and 2, by their code's schedule",
        images=50_000,
        macs=2.30e16,
        reaches="CIFAR-10 accuracy 85.07 / 89.06 / 86.21 / 61.73 % on blocks 1 to 4 by a classifier of three layers, "
        "supervised 92.80 %, random 72.50 %",
        differs="windows of 28 px instead of 32 px from a padded image, and no weight decay on biases and norms; "
        "tilespin evaluate --protocols nonlinear --num-labels 0 evaluates it by three layers, on five in six labels",
    ),
    "rotnet-imagenet-resnet50": Published(
        recipe=PretrainConfig(
            task=RotNet.Config(batch=256, rotations="one", crop=1.0, optim=VISSL_STEPS),
            data=IMAGENET,
            size=224,
            encoder="resnet50",
            epochs=105.0,
        ),
        source="RotNet with a ResNet-50 on ImageNet, VISSL's rotnet_8gpu_resnet (Goyal et al. 2019)",
        images=1_281_167,
        macs=1.65e18,
        reaches="ImageNet linear accuracy 48.2 % (VISSL), 48.9 % (Misra and van der Maaten 2020, table 2)",
        differs="square crops of at least a quarter of the image, no weight decay on biases and norms",
    ),
    "jigsaw-imagenet-resnet50": Published(
        recipe=PretrainConfig(
            task=Jigsaw.Config(
                batch=256,
                grid=3,
                permutations=100,
                orders=1,
                grayscale=0.66,
                shift=0,
                hidden_dim=4096,
                optim=Optim(
                    optimizer="momentum",
                    lr=0.1,
                    weight_decay=1e-4,
                    warmup=5 / 105,
                    lr_milestones=VISSL_STEPS.lr_milestones,
                ),
            ),
            data=IMAGENET,
            size=255,
            encoder="resnet50",
            epochs=105.0,
        ),
        source="Jigsaw with a ResNet-50 on ImageNet, VISSL's jigsaw_8gpu_resnet with 100 permutations (Goyal et al. "
        "2019)",
        images=1_281_167,
        macs=1.21e18,
        reaches="ImageNet linear accuracy 48.57 % (VISSL), 45.7 % (Misra and van der Maaten 2020, table 2)",
        differs="tiles are standardized, the permutations have the largest least distance, one hidden layer of 4,096 "
        "over all tiles instead of 1,000 for each",
    ),
    "colorize-imagenet-resnet50": Published(
        recipe=PretrainConfig(
            task=Colorize.Config(batch=256, optim=VISSL_STEPS),
            data=IMAGENET,
            size=224,
            encoder="resnet50",
            epochs=105.0,
        ),
        source="Colorization (Zhang et al. 2016) with a ResNet-50 on ImageNet, Goyal et al. 2019, evaluated in VISSL's "
        "model zoo",
        images=1_281_167,
        macs=1.65e18,
        reaches="ImageNet linear accuracy 40.11 % (VISSL), 39.6 % (Misra and van der Maaten 2020, table 2)",
        differs="the schedule of VISSL's other pretext tasks, as none is published with the weights; 261 colors, not "
        "313, weighted by those of the images seen so far; probes see color, the pretext task lightness alone",
    ),
    "pirl-imagenet-resnet50": Published(
        recipe=PretrainConfig(
            task=PIRL.Config(
                batch=1024,
                loader_min_area=1.0,
                transform="jigsaw",
                grid=3,
                memory=MemoryOptions(negatives=32_000),
                views=ContrastiveAugmentation(crop=1.0, min_area=0.08),
                optim=Optim(optimizer="momentum", lr=0.12, weight_decay=1e-4, warmup=0.0),
            ),
            data=IMAGENET,
            size=224,
            encoder="resnet50",
            epochs=200.0,
        ),
        source="PIRL by jigsaw with a ResNet-50 on ImageNet, VISSL's pirl_jigsaw_4node_resnet50 (Misra and van der "
        "Maaten 2020)",
        images=1_281_167,
        macs=5.20e18,
        reaches="ImageNet linear accuracy 62.9 % after 200 epochs (VISSL), 63.6 % after 800 (the paper, table 2)",
        differs="tiles of 56 px from an image of 224 px instead of 64 px from one of 255 px, hue changes by half as "
        "much, a cosine to zero",
    ),
    "context-imagenet-resnet18": Published(
        recipe=PretrainConfig(
            task=Context.Config(
                batch=64,
                mask="region",
                optim=Optim(optimizer="adamw", lr=2e-4, weight_decay=0.0, warmup=0.0),
            ),
            data=IMAGENET,
            size=128,
            encoder="resnet18",
            epochs=100.0,
        ),
        source="A context autoencoder with random regions and the L2 loss on ImageNet, Pathak et al. 2016, section 3.3",
        images=1_281_167,
        macs=2.28e17,
        reaches="Pascal VOC 2007 classification 56.5 %, fine-tuned, with an AlexNet; none is known for this encoder",
        differs="a ResNet-18 instead of an AlexNet, a convolutional decoder instead of five up-convolutions, a cosine",
    ),
}
