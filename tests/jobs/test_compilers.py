"""What torch.compile needs of a machine is looked for before anything runs."""

import pytest

from jobs.pretraining import compilers
from ssl_core.errors import UserError


@pytest.mark.parametrize(
    ("device", "variables", "why"),
    [
        ("cpu", {"CXX": "no-such-compiler"}, "CXX=no-such-compiler is not there: install g"),
        ("cpu", {"CXX": "g++ '"}, 'CXX is "g\\+\\+ \'": No closing quotation'),
        ("cpu", {"PATH": "/nowhere"}, r"there is no g\+\+"),
        ("cuda", {"PATH": "/nowhere"}, "there is no gcc or clang"),
        ("cuda", {"CC": "env gcc"}, "CC=env gcc is not there"),  # Triton takes the whole for a file's name
    ],
)
def test_what_is_missing_is_named(monkeypatch, device, variables, why):
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=why):
        compilers.check_compiler(device)


def test_a_compiler_may_have_options(monkeypatch):
    monkeypatch.setenv("CXX", "env g++ -O1")
    compilers.check_compiler("cpu")
