"""One callable on many workers that train together: Ray Train places them, connects them and restarts them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.session import ClusterError

RESTARTS = 3
CONNECT_SECONDS = 1200  # a worker that hangs in a collective for longer is taken for dead; a store may take 900


def on_workers(
    call: Callable[[Any, str], Any], argument: Any, *, workers: int, gpu: bool, name: str, logs: Path,
    final: tuple[type[Exception], ...],
) -> Any:  # fmt: skip
    """`call(argument, device)` in each of `workers` processes within one torch.distributed group (NCCL on GPUs,
    gloo on CPUs) -> what rank 0 returned. Needs an open session.

    If a worker dies, all are started again, at most RESTARTS times: `call` has to find its own checkpoint. An
    exception of a type in `final` would come again, so it is raised here at once; others raise ClusterError in
    the end.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _loop,
        train_loop_config={"call": call, "argument": argument, "final": final},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        torch_config=TorchConfig(timeout_s=CONNECT_SECONDS),
        run_config=RunConfig(name=name, storage_path=str(logs), failure_config=FailureConfig(max_failures=RESTARTS)),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise ClusterError(str(error)) from error
    if isinstance(result.return_value, Exception):
        raise result.return_value
    return result.return_value


def _loop(config: dict) -> Any:
    import ray.train.torch

    try:
        return config["call"](config["argument"], str(ray.train.torch.get_device()))
    except config["final"] as error:
        return error
