"""Says what to do about a GPU whose memory is too small for a training."""

from jobs.pretraining.run import Training


def out_of_memory_advice(training: Training, error: Exception) -> str:
    """Returns what to do about too little memory.

    Most of it begins another run, since a worker's share of a batch decides batch norm.

    Args:
        training: The run.
        error: What torch said.
    """
    task, recipe = training.recipe.task, training.recipe
    ways = [] if training.activation_checkpointing else ["--activation-checkpointing (this run goes on with it)"]
    if training.cuda_graphs != "off":
        ways.append("--cuda-graphs off, which keeps no memory beside that of a step")
    ways += [
        "a smaller --size",
        "more --workers, which share a batch",
        "--loader cpu, which keeps images out of the GPU",
    ]
    if recipe.precision != "bf16":
        ways.append("--precision bf16")
    if task.side_by_side > 1:
        ways.append(
            "a smaller --batch, though each image is then compared with fewer (a larger --grad-accumulation does the "
            "same)"
        )
    elif recipe.grad_accumulation < task.batch:
        ways = ["a larger --grad-accumulation", "a smaller --batch", *ways]
    return (
        f"out of GPU memory in {training.name} (--batch {task.batch}, --grad-accumulation {recipe.grad_accumulation}): "
        f"try {', '.join(ways[:-1])}, or {ways[-1]} ({str(error).splitlines()[0]})"
    )
