"""Loads encoders that were not trained in this study: published ones, state dicts in files, and other studies' runs."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load as safetensors_load
from torch import nn

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ssl_core.encoders.choice import choose_network
from ssl_core.encoders.state_dicts import read_state_dicts
from ssl_core.encoders.timm_models import build_timm
from ssl_core.errors import TilespinError, UserError
from ssl_core.storage.files import exists, open_path, read_bytes
from ssl_core.storage.records import EncoderRecord

RANDOM = "random"
LIBRARIES = ("timm", "torchvision")
FORMS = (
    "timm:NAME, timm:NAME=FILE, timm:NAME=FILE#NETWORK, timm:NAME=random, the same with torchvision, or a run's folder"
)


@dataclass(frozen=True)
class Pretrained:
    """Holds an encoder with its weights, and says how it wants its pixels.

    Attributes:
        label: A name for people.
        encoder: The encoder; None at random initialization, which need not be kept.
        architecture: Its name for `encoders.build`.
        built: The image side in pixels that it is built for.
        mean: By which each channel is standardized, of 0..255.
        std: By which each channel is divided, in the same units.
        normalization: "dataset": by these statistics; "image": by each image's own.
        seed: The seed of its initialization.
        unused: Names of tensors in the file that are no part of the encoder, such as those of a classifier.
        notes: What was decided in loading it, for people.
        origin: What encoder.json says of an encoder of another study; None for any other.
    """

    label: str
    encoder: nn.Module | None
    architecture: str
    built: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    normalization: str = "dataset"
    seed: int = 0
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: EncoderRecord | None = None

    def network(self) -> nn.Module:
        """Returns the encoder, which is built anew where it is at random initialization."""
        return self.encoder or encoders.build(self.architecture, self.built, self.seed)


def load_pretrained(spec: str) -> Pretrained:
    """Loads the encoder that a command-line option names.

    Files are read as safetensors or by torch.load with weights_only: nothing that a file holds is ever run.

    Args:
        spec: The option's value, in one of FORMS.

    Raises:
        UserError: If there is no such encoder or file, it cannot be downloaded or read, or it does not fit.
    """
    if "\0" in spec:
        raise UserError(f"--encoder {spec!r}: no file has such a name")
    try:
        return _load(spec)
    except OSError as error:
        if isinstance(error, TilespinError):
            raise
        raise UserError(f"--encoder {spec}: cannot be read: {error.strerror or error}") from error


def with_place(spec: str, resolve: Callable[[str], str]) -> str:
    """Returns an encoder's name with the place of its file or folder as `resolve` returns it.

    A name without a place, such as "random" or "timm:resnet18", is returned as it is.

    Args:
        spec: The name, in one of FORMS, or "random".
        resolve: Makes one place of another, such as an absolute path.
    """
    library, _, rest = spec.partition(":")
    if spec == RANDOM:
        return spec
    if library not in LIBRARIES or ":" not in spec:
        return resolve(spec)
    name, _, place = rest.partition("=")
    return f"{library}:{name}={resolve(place)}" if place not in ("", RANDOM) else spec


def _load(spec: str) -> Pretrained:
    """Returns the encoder that `spec` names."""
    library, colon, rest = spec.partition(":")
    if not colon or library not in LIBRARIES:
        return _load_from_study(spec)
    name, equals, source = rest.partition("=")
    if not name or (equals and not source):
        raise UserError(f"--encoder {spec}: expected {FORMS}")
    architecture = name if library == "timm" else spec.partition("=")[0]
    if source == RANDOM:
        built = encoders.published_size(architecture)
        encoders.build(architecture, built, 0)
        return Pretrained(spec, None, architecture, built)
    if source:
        return _load_from_file(library, name, architecture, source)
    encoder = _load_published(library, name, architecture)
    return Pretrained(spec, encoder, architecture, encoders.published_size(architecture), *_statistics(library, name))


def _statistics(library: str, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation of 0..255 that a library's weights were trained with.

    torchvision's are all those of ImageNet.
    """
    import timm

    config = timm.get_pretrained_cfg(name) if library == "timm" and timm.is_model(name.split(".")[0]) else None
    if config is None or not config.mean or not config.std:
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(255 * v for v in config.mean), tuple(255 * v for v in config.std)


def _load_published(library: str, name: str, architecture: str) -> nn.Module:
    """Returns the encoder with the weights that the library itself publishes."""
    built = encoders.published_size(architecture)
    encoder = encoders.build(architecture, built, 0)  # says what is wrong with a name
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it tells of every attempt; one line is enough
    try:
        if library == "timm":
            return build_timm(name, built, pretrained=True)
        from torchvision.models import get_model_weights

        published = get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]  each enum has one
        encoder.load_state_dict(published.get_state_dict(progress=False), strict=False)
        return encoder
    except Exception as error:  # each library has its own for a name without weights or a host that does not answer
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"--encoder {library}:{name}: its pretrained weights cannot be had: {message[0][:200]}; give them as a "
            f"file, {library}:{name}=FILE, or take it untrained, {library}:{name}={RANDOM}"
        ) from error


def _load_from_study(spec: str) -> Pretrained:
    """Returns the encoder of a run's folder, or of its encoder.safetensors with encoder.json in the same folder."""
    place = open_path(spec, "--encoder")
    folder = place.parent if place.suffix else place
    if not exists(folder / "encoder.json"):
        what = (
            "no encoder.json lies beside it, so its architecture has to be said"
            if place != folder
            else ("there is no encoder.json in it")
        )
        raise UserError(f"--encoder {spec}: {what}: expected {FORMS}")
    try:
        encoder, record = load_saved(folder)
    except OSError as error:
        raise UserError(f"{folder}: encoder.safetensors cannot be read: {error}") from error
    return Pretrained(
        record.training.run if record.training else record.label,
        encoder,
        record.encoder,
        record.size,
        record.mean,
        record.std,
        record.normalization,
        record.seed,
        origin=record,
    )


def load_saved(folder: Path) -> tuple[nn.Module, EncoderRecord]:
    """Loads the encoder of a run.

    Args:
        folder: Holds encoder.safetensors and encoder.json, which describes it.

    Returns:
        The encoder, and the content of encoder.json.

    Raises:
        UserError: If encoder.safetensors is damaged or not what encoder.json describes.
        OSError: If a file cannot be read.
    """
    record = EncoderRecord.read(folder / "encoder.json")
    encoder = encoders.build(record.encoder, record.size, record.seed)
    data = read_bytes(folder / "encoder.safetensors")
    try:
        encoder.load_state_dict(safetensors_load(data))
    except Exception as error:
        raise UserError(f"{folder}: encoder.safetensors cannot be read: {str(error).splitlines()[0]}") from error
    if encoders.digest(encoder) != record.digest:
        raise UserError(f"{folder}: encoder.safetensors is not the one that encoder.json describes")
    return encoder, record


def _load_from_file(library: str, name: str, architecture: str, source: str) -> Pretrained:
    """Returns the encoder with the weights of a file, or of one of the networks in it: FILE, or FILE#NETWORK."""
    file, asked = _split(source)
    built = encoders.published_size(architecture)
    encoder = encoders.build(architecture, built, 0)
    short = re.split(r"[/\\]", file.rstrip("/"))[-1]
    choice = choose_network(encoder, architecture, read_state_dicts(open_path(file, "--encoder")), file, asked)
    state = encoder.state_dict()
    for own, tensor in choice.network.state().items():
        if state[own].is_floating_point() and not tensor.is_floating_point():
            raise UserError(
                f"{file}: {own} is {str(tensor.dtype).removeprefix('torch.')}, only floats are weights here"
            )
    taken = {name: tensor.to(state[name].dtype) for name, tensor in choice.network.state().items()}
    encoder.load_state_dict({**state, **taken})
    notes = []
    if choice.others:
        others = " and ".join(f"{short}#{other}" for other in choice.others)
        notes.append(f"it is {choice.label} of the file, where {others} would fit as well")
    if choice.network.order:
        notes.append(f"the numbers in its names count {name}'s children: {choice.network.order}")
    label = f"{library}:{name}={short}" + (f"#{choice.label}" if choice.label else "")
    mean, std = _statistics(library, name)
    return Pretrained(label, encoder, architecture, built, mean, std, unused=choice.unused, notes=tuple(notes))


def _split(source: str) -> tuple[str, str | None]:
    """Splits FILE#NETWORK into FILE and NETWORK, or None if there is no #.

    A file whose own name has a # in it is recognized by its existence; in a web address, what follows the # is never a
    part of the file's name.
    """
    marks = [i for i, letter in enumerate(source) if letter == "#"]
    if not re.match(r"https?://", source):
        for end in [len(source), *reversed(marks)]:
            if marks and exists(open_path(source[:end], "--encoder")):
                return source[:end], source[end + 1 :] or None
    return (source[: marks[0]], source[marks[0] + 1 :] or None) if marks else (source, None)


def file_name(label: str) -> str:
    """Returns a label as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label)
