"""Evaluates one encoder in this process, outside a study; no file is written."""

import copy
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import ssl_core.encoders.build as encoders
from jobs.config.evaluation import Evaluation
from jobs.config.runtime import device_name
from jobs.evaluation.jobs import check_dataset
from jobs.evaluation.records import make_record
from ssl_core.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Source, open_source
from ssl_core.encoders.any_module import StageMaps
from ssl_core.encoders.pretrained import load_pretrained
from ssl_core.errors import UserError
from ssl_core.evaluation.features import extract
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.protocol import protocols
from ssl_core.storage.records import EncoderIdentity, EvaluationRecord

Statistics = tuple[Sequence[float] | None, Sequence[float] | None]  # mean and std of each channel, of 0..255


def evaluate_directly(
    encoder: str | Path | nn.Module,
    data: str,
    size: int | None,
    evaluation: Evaluation,
    device: str | None = None,
    threads: int = 0,
    statistics: Statistics | None = None,
) -> dict[str, EvaluationRecord]:
    """Evaluates an encoder and returns the record of each protocol.

    Args:
        encoder: What --encoder of `tilespin evaluate` takes, or a network, which is copied.
        data: The dataset, as --data takes it.
        size: Side in pixels that images are resized to; None: the dataset's own.
        evaluation: Protocols, splits and seed.
        device: "cpu" or "cuda"; None: cuda if there is one.
        threads: Threads that decode images; 0 for one for each core.
        statistics: By which the pixels of a network are normalized; None, also for one of the two: ImageNet's.

    Raises:
        UserError: If the encoder, the dataset or a protocol cannot be used.
        Diverged: If features are not finite.
    """
    evaluation.check()
    evaluation = evaluation.fitted([(data, size)])
    source = open_source(data, size)
    check_dataset(source, evaluation)
    network, identity, label = _network(encoder, source, data, statistics)
    digest, seed = encoders.digest(network), evaluation.probe_seed
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = threads or len(os.sched_getaffinity(0))
    splits = evaluation.splits()
    frozen = FrozenEncoder(network, source, identity.normalization, splits, seed, torch.device(where), threads)
    features, records = None, {}
    for name in evaluation.protocols:
        protocol, started = protocols()[name], time.monotonic()
        if protocol.on == "features":
            features = subject = features or extract(frozen)
        else:
            subject = frozen
        result = protocol.run(subject, protocol.Config(), seed)
        records[name] = make_record(
            label,
            identity,
            digest,
            source,
            evaluation,
            name,
            result,
            labels=subject.labels,
            device=device_name(where),
            seconds=time.monotonic() - started,
        )
    return records


def _network(
    encoder: str | Path | nn.Module, source: Source, data: str, statistics: Statistics | None
) -> tuple[nn.Module, EncoderIdentity, str]:
    """Returns an encoder of pixels as the dataset's are normalized, what it is, and what it is called."""
    given = source.mean, source.std
    if isinstance(encoder, nn.Module):
        label = type(encoder).__name__
        mean, std = statistics or (None, None)
        wanted = tuple(mean or IMAGENET_MEAN), tuple(std or IMAGENET_STD)
        network = encoders.RestandardizedEncoder(StageMaps(copy.deepcopy(encoder)), given, wanted)
        return network, EncoderIdentity(label, label, None, data, source.size, 0, "dataset"), label
    if statistics:
        raise UserError("mean and std are those of a network; other encoders bring their own")
    one = load_pretrained(str(encoder))
    network = one.network()
    if one.encoder and one.normalization == "dataset" and (one.mean, one.std) != given:
        network = encoders.RestandardizedEncoder(network, given, (one.mean, one.std))
    trained = one.origin.training if one.origin else None
    task = trained.task if trained else one.label
    run = trained.run if trained else None
    identity = EncoderIdentity(task, one.architecture, run, data, source.size, one.seed, one.normalization)
    return network, identity, one.label
