"""Published pretrainings by tasks that compare two views of an image: a ResNet-18 on CIFAR-10."""

from dataclasses import replace

from jobs.config.published.entry import Published
from jobs.config.recipe import PretrainConfig
from ssl_core.augmentations import ContrastiveAugmentation
from ssl_core.optim import Optim
from ssl_core.tasks.byol import BYOL
from ssl_core.tasks.multi import Multi
from ssl_core.tasks.simclr import SimCLR
from ssl_core.tasks.vicreg import VICReg

LIGHTLY = "lightly's CIFAR-10 benchmark, of which the page takes the best epoch on test images"
LIGHTLY_VIEWS = ContrastiveAugmentation(crop=1.0, min_area=0.08)
LIGHTLY_OPTIM = Optim(optimizer="momentum", lr=0.06, weight_decay=5e-4, warmup=0.0)
# the same steps: its loss is a quarter of the paper's, which is computed here
BYOL_OPTIM = replace(LIGHTLY_OPTIM, lr=0.06 / 4, weight_decay=4 * 5e-4)
BY_NEIGHBORS = "tilespin evaluate --protocols knn --num-labels 0 evaluates it by neighbors, of five in six labels"

JOINT_EMBEDDING = {
    "simclr-cifar10-resnet18": Published(
        recipe=PretrainConfig(
            task=SimCLR.Config(batch=128, views=LIGHTLY_VIEWS, optim=LIGHTLY_OPTIM),
            data="cifar10",
            encoder="resnet18",
            epochs=200.0,
        ),
        source=f"SimCLR with a ResNet-18 with a stem for small images, {LIGHTLY}",
        images=50_000,
        macs=3.33e16,
        reaches="CIFAR-10 accuracy by 200 nearest neighbors 84.7 % after 200 epochs",
        differs=f"no weight decay on biases and norms, batch norm sees both views together; {BY_NEIGHBORS}",
    ),
    "essl-cifar10-resnet18": Published(
        recipe=PretrainConfig(
            task=Multi.Config(
                batch=512,
                tasks=("simclr", "rotnet"),
                weights=(1.0, 0.4),
                optim=Optim(optimizer="momentum", lr=0.06, weight_decay=5e-4, warmup=10 / 800),
            ),
            data="cifar10",
            encoder="resnet18",
            epochs=800.0,
        ),
        source="E-SSL, SimCLR that also predicts turns, with a ResNet-18 with a stem for small images on CIFAR-10, "
        "Dangovski et al. 2022, by their code's schedule",
        images=50_000,
        macs=2.25e17,
        reaches="CIFAR-10 linear accuracy 94.1 %, SimCLR alone 92.0 %",
        differs="turned windows of 24 px without changes of color in place of crops resized to 16 px, one linear layer "
        "that predicts turns in place of three, negatives of both views, no weight decay on biases and norms",
    ),
    "byol-cifar10-resnet18": Published(
        recipe=PretrainConfig(
            task=BYOL.Config(batch=128, hidden_dim=1024, projection_dim=256, views=LIGHTLY_VIEWS, optim=BYOL_OPTIM),
            data="cifar10",
            encoder="resnet18",
            epochs=200.0,
        ),
        source=f"BYOL with a ResNet-18 with a stem for small images, {LIGHTLY}",
        images=50_000,
        macs=4.44e16,
        reaches="CIFAR-10 accuracy by 200 nearest neighbors 86.9 % after 200 epochs",
        differs="the teacher's momentum rises from 0.99 to 1, batch norm sees both views together; " + BY_NEIGHBORS,
    ),
    "vicreg-cifar10-resnet18": Published(
        recipe=PretrainConfig(
            task=VICReg.Config(
                batch=256,
                invariance=1.0,
                variance=1.0,
                covariance=0.04,
                projection_dim=2048,
                views=ContrastiveAugmentation(crop=1.0),
                optim=Optim(optimizer="lars", lr=0.3, weight_decay=1e-4, warmup=10 / 300),
            ),
            data="cifar10",
            encoder="resnet18",
            epochs=300.0,
        ),
        source="VICReg with a ResNet-18 with a stem for small images on CIFAR-10, facebookresearch/eb_jepa, image_jepa",
        images=50_000,
        macs=5.0e16,
        reaches="CIFAR-10 linear accuracy 90.12 % after 300 epochs",
        differs="the paper's ratio of the three terms, 25 to 25 to 1, no blur and no solarization",
    ),
}
