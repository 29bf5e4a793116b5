"""The loaders of encoded images that this machine has, for tests that hold for each."""

import pytest

from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.resident import ResidentLoader
from ssl_core.data.loaders.select import dali_installed

KINDS = [CpuLoader, ResidentLoader]
if dali_installed():
    from ssl_core.data.loaders.dali import DaliLoader

    KINDS.append(DaliLoader)
each_kind = pytest.mark.parametrize("kind", KINDS)
