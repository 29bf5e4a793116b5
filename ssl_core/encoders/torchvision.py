"""Makes encoders of torchvision's classification models: the last map of every resolution, found by tracing."""

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError, choose

HEIGHT, WIDTH = 224, 160  # pixels that stages are looked for at: maps of [channels, height, width] keep the ratio
HEADS = ("classifier", "fc", "head", "heads")  # what comes after the encoder


class Stages(nn.Module):
    """Returns the maps of a traced model's stages as a list; its weights have torchvision's names.

    Args:
        traced: A model that returns its stages' maps by name, shallow to deep.
    """

    def __init__(self, traced: nn.Module):
        super().__init__()
        self.traced = traced

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.traced(x).values())

    def state_dict(self, *args, **kwargs):
        return self.traced.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        return self.traced.load_state_dict(state_dict, strict, assign)


def build_stages(name: str) -> nn.Module:
    """Builds a model of torchvision without its classifier, with random weights.

    Args:
        name: torchvision's name of the model.

    Returns:
        An encoder: [b, 3, h, w] to the list of the last map of each resolution, shallow to deep.

    Raises:
        UserError: If torchvision has no such model, or it has no maps of [channels, height, width].
    """
    from torchvision.models import get_model, list_models

    try:
        model = get_model(name, weights=None)
    except ValueError as error:
        raise UserError(f"encoder 'torchvision:{name}' cannot be built: {choose(name, list_models())}") from error
    return Stages(_without_head(model, name))


def _without_head(model: nn.Module, name: str) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    try:
        known = [set(nodes) for nodes in get_graph_node_names(model)]
        both = [node for node in get_graph_node_names(model)[1] if node in known[0]]
        probe = create_feature_extractor(model, return_nodes={node: node for node in both}).eval()
        with torch.no_grad():
            found = probe(torch.zeros(1, 3, HEIGHT, WIDTH))
    except Exception as error:  # tracing meets whatever a model's code does
        raise UserError(
            f"encoder 'torchvision:{name}' cannot be cut into stages: {str(error).splitlines()[0]}"
        ) from error
    layers, last = dict(model.named_modules()), {}
    for node, value in found.items():
        head = node.split(".")[0] in HEADS or isinstance(layers.get(node), nn.AdaptiveAvgPool2d)
        if isinstance(value, Tensor) and value.ndim == 4 and not head and _is_map(*value.shape[2:]):
            last[value.shape[2]] = node
    if not last:
        raise UserError(f"encoder 'torchvision:{name}' gives no maps of [channels, height, width]: choose another")
    return create_feature_extractor(model, return_nodes={last[side]: str(side) for side in sorted(last, reverse=True)})


def _is_map(height: int, width: int) -> bool:
    """Returns whether a map of these sides is a smaller version of the image; borders may cost it a cell or two."""
    return 1 < height < HEIGHT and abs(height * WIDTH - width * HEIGHT) <= 2 * HEIGHT
