"""The loaders of encoded images that this machine has, for tests that hold for each."""

import pytest

from ssl_core.data.loader import dali_installed
from ssl_core.data.resident import ResidentLoader
from ssl_core.data.torch_loader import TorchLoader

KINDS = [TorchLoader, ResidentLoader]
if dali_installed():
    from ssl_core.data.dali import DaliLoader

    KINDS.append(DaliLoader)
each_kind = pytest.mark.parametrize("kind", KINDS)
