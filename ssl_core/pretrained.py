"""Encoders that were not trained here: timm's and torchvision's, state dicts in files, and those of other studies."""

import io
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load as safetensors_load
from torch import Tensor, nn

import ssl_core.encoders as encoders
from ssl_core.data.source import IMAGENET_MEAN, IMAGENET_STD
from ssl_core.errors import BadInput
from ssl_core.files import at, exists, read_bytes, read_json

RANDOM = "random"
FORMS = "timm:NAME, timm:NAME=FILE, timm:NAME=random, the same with torchvision, or a run's folder"
COUNTERS = "num_batches_tracked"  # of batch norm; older files lack them, and nothing here reads them


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its weights, and how it wants its pixels."""

    label: str  # for people
    encoder: nn.Module | None  # None: at random initialisation, which need not be kept
    architecture: str  # what `encoders.build` calls it
    built: int  # the images' side in pixels that it is made for
    mean: tuple[float, ...] = IMAGENET_MEAN  # that pixels are standardised by, of 0..255
    std: tuple[float, ...] = IMAGENET_STD
    normalisation: str = "dataset"  # as a task's: by these statistics, or "image", by each image's own
    seed: int = 0  # of its initialisation
    unused: tuple[str, ...] = ()  # tensors of the file that are no part of the encoder, such as its classifier
    origin: dict = field(default_factory=dict)  # encoder.json of another study's


def pretrained(told: str) -> Pretrained:
    """The encoder that `told` names, in one of FORMS. Files are read as safetensors or by torch.load with
    weights_only: nothing that a file holds is ever run.

    Raises BadInput for what does not exist, cannot be downloaded or read, or does not fit.
    """
    library, colon, rest = told.partition(":")
    if not colon or library not in ("timm", "torchvision"):
        return _of_study(told)
    name, equals, source = rest.partition("=")
    if not name or (equals and not source):
        raise BadInput(f"--encoder {told}: expected {FORMS}")
    architecture = name if library == "timm" else told.partition("=")[0]
    if source == RANDOM:
        encoders.build(architecture, encoders.SMALL, 0)
        return Pretrained(told, None, architecture, encoders.SMALL)
    mean, std = _statistics(library, name)
    unused: tuple[str, ...] = ()
    if source:
        encoder = encoders.build(architecture, encoders.SMALL, 0)
        unused = fill(encoder, state_dicts(at(source, "--encoder")), source)
        label = f"{library}:{name}={Path(source).name}"
    else:
        encoder, label = _downloaded(library, name), told
    return Pretrained(label, encoder, architecture, encoders.SMALL, mean, std, unused=unused)


def _statistics(library: str, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std of 0..255 that a library's weights were trained with; torchvision's are all ImageNet's."""
    import timm

    config = timm.get_pretrained_cfg(name) if library == "timm" and timm.is_model(name.split(".")[0]) else None
    if config is None or not config.mean or not config.std:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(255 * v for v in config.mean), tuple(255 * v for v in config.std)


def _downloaded(library: str, name: str) -> nn.Module:
    """With the weights that the library itself publishes."""
    built = name if library == "timm" else f"{encoders.TORCHVISION}{name}"
    encoder = encoders.build(built, encoders.SMALL, 0)  # says what is wrong with a name
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it tells of every attempt; one line is enough
    try:
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=True, features_only=True)
        from torchvision.models import get_model_weights

        encoder.load_state_dict(get_model_weights(name).DEFAULT.get_state_dict(progress=False), strict=False)
        return encoder
    except Exception as error:  # each library has its own for a name without weights or a host that does not answer
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(
            f"--encoder {library}:{name}: its pretrained weights cannot be had: {said[0][:200]}; give them as a file, "
            f"{library}:{name}=FILE, or take it untrained, {library}:{name}={RANDOM}"
        ) from error


def _of_study(told: str) -> Pretrained:
    """A run's folder, or its encoder.safetensors beside encoder.json."""
    place = at(told, "--encoder")
    folder = place.parent if place.suffix else place
    if not exists(folder / "encoder.json"):
        what = "no encoder.json lies beside it, so its architecture has to be said" if place != folder else (
            "there is no encoder.json in it")  # fmt: skip
        raise BadInput(f"--encoder {told}: {what}: expected {FORMS}")
    try:
        encoder, described = stored(folder)
    except OSError as error:
        raise BadInput(f"{folder}: encoder.safetensors cannot be read: {error}") from error
    return Pretrained(
        described["run"], encoder, described["encoder"], described["size"], tuple(described["mean"]),
        tuple(described["std"]), described["normalisation"], described["seed"], origin=described,
    )  # fmt: skip


def stored(folder: Path) -> tuple[nn.Module, dict]:
    """The encoder of encoder.safetensors in `folder`, and what encoder.json beside it says. Raises BadInput if one of
    them is not what the other needs."""
    described = read_json(folder / "encoder.json")
    encoder = encoders.build(described["encoder"], described["size"], described["seed"])
    data = read_bytes(folder / "encoder.safetensors")
    try:
        encoder.load_state_dict(safetensors_load(data))
    except Exception as error:
        raise BadInput(f"{folder}: encoder.safetensors cannot be read: {str(error).splitlines()[0]}") from error
    if encoders.digest(encoder) != described["digest"]:
        raise BadInput(f"{folder}: encoder.safetensors is not the one that encoder.json describes")
    return encoder, described


def state_dicts(path: Path) -> list[dict[str, Tensor]]:
    """Every dict of tensors in a safetensors file or a checkpoint of torch.save, however deep it lies.

    Raises BadInput for a file that is neither, or that holds what only unpickling could make.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    try:
        if data[:2] not in (b"PK", b"\x80\x02"):  # a zip, or a pickle as torch wrote them before 1.6
            return [safetensors_load(data)]
        held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        said = str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"{path} is neither safetensors nor a checkpoint that holds nothing but tensors and numbers ({said}); "
            "nothing else is unpickled here: save its state_dict alone"
        ) from error
    return list(_dicts(held))


def _dicts(held):
    if isinstance(held, dict):
        tensors = {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if tensors:
            yield tensors
        for value in held.values():
            yield from _dicts(value)


def fill(encoder: nn.Module, found: list[dict[str, Tensor]], file: str) -> tuple[str, ...]:
    """Loads into `encoder` the weights of the one of `found` that fits best -> names of what it does not have, such
    as a classifier's.

    A prefix before all names (module., backbone., encoder.) is dropped whatever it is, and a dot counts as an
    underscore, which timm writes into the names of stages. Raises BadInput unless every weight has its tensor.
    """
    wanted = {_plain(name): name for name in encoder.state_dict()}
    best: dict[str, str] = {}  # name in the encoder: name in the file
    tensors: dict[str, Tensor] = {}
    for candidate in found:
        names = {_plain(name): name for name in candidate}
        for prefix in _prefixes(names, wanted):
            matched = {wanted[plain]: names[prefix + plain] for plain in wanted if prefix + plain in names}
            if len(matched) > len(best):
                best, tensors = matched, candidate
    state = encoder.state_dict()
    missing = [name for name in state if name not in best and not name.endswith(COUNTERS)]
    if missing:
        raise BadInput(
            f"{file} fits {len(best)} of {len(state)} tensors of the encoder; it lacks {_few(missing)}"
            + (f", and has {_few([n for d in found for n in d if n not in best.values()])}" if found else "")
        )
    wrong = [f"{name} {tuple(tensors[of].shape)} instead of {tuple(state[name].shape)}"
             for name, of in best.items() if tensors[of].shape != state[name].shape]  # fmt: skip
    if wrong:
        raise BadInput(f"{file} has other shapes than the encoder: {_few(wrong)}")
    encoder.load_state_dict({**state, **{name: tensors[of].to(state[name].dtype) for name, of in best.items()}})
    return tuple(name for name in tensors if name not in best.values())


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _prefixes(names: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """What may stand before all names: whatever stands before the encoder's first one, the shortest first."""
    first = next(iter(wanted))
    return sorted({name[: -len(first)] for name in names if name.endswith(first)}, key=len)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def plain_name(label: str) -> str:
    """`label` as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label)
