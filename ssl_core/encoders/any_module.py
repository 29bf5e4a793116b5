"""Lets any network be evaluated that makes one or several features of an image."""

from torch import Tensor, nn


class StageMaps(nn.Module):
    """Gives a network's output the form that an encoder has here: a list of maps.

    Args:
        network: Maps [b, 3, h, w] to a tensor of [b, width, h', w'] or [b, width], or to a list or tuple of such.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the maps, [b, width, h', w'] each; a vector is a map of a single cell.

        Raises:
            TypeError: If the network returns something else.
        """
        found = self.network(images)
        maps = list(found) if isinstance(found, (list, tuple)) else [found]
        for one in maps:
            if not isinstance(one, Tensor) or one.dim() not in (2, 4) or len(one) != len(images):
                shape = list(one.shape) if isinstance(one, Tensor) else type(one).__name__
                raise TypeError(
                    f"the encoder returns {shape}; expected [b, width, h, w] or [b, width], or a list of them"
                )
        return [one if one.dim() == 4 else one[:, :, None, None] for one in maps]
