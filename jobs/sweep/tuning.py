"""Tunes the learning rate of each recipe of a study by short trainings, of equally many rates for each."""

from collections.abc import Iterable
from dataclasses import asdict, replace

from jobs.config.evaluation import Evaluation, TransferEntry
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.config.study import StudyConfig
from jobs.evaluation.encoders import EvaluatedEncoder, from_training, on_datasets
from jobs.evaluation.jobs import check_evaluation
from jobs.evaluation.records import current_records, describe_evaluation
from jobs.execution.plan import StudyPlan
from jobs.execution.run import console, run_plan
from jobs.pretraining.budget import longest_first
from jobs.pretraining.run import Training, prepare_training
from jobs.pretraining.similar_runs import flatten
from jobs.study.folder import JobsFailed, Study
from jobs.sweep.choice import Candidate, choose_learning_rate, rates_around
from ssl_core.data.dataset import open_source
from ssl_core.storage.files import exists
from ssl_core.storage.records import EncoderRecord
from ssl_core.storage.study_record import TrialRecord, TuningRecord
from ssl_core.task import task_name

PROTOCOL = "linear"  # whose held-out accuracy chooses


def plan_tuning(config: StudyConfig, planned: Iterable[PretrainConfig]) -> dict[PretrainConfig, list[PretrainConfig]]:
    """Returns, for trainings that differ by their seed only, the short trainings that try learning rates for them.

    Each rate gets the same share of the length, and is tried with the first seed.

    Args:
        config: The study.
        planned: Its trainings; one for each group is a key of what is returned.
    """
    return {one: _trials(config, one) for one in planned if config.tune and one.seed == config.seed}


def _trials(config: StudyConfig, one: PretrainConfig) -> list[PretrainConfig]:
    """Returns the short trainings for one recipe, by rising learning rate."""
    optim, share = one.task.optim, config.tune_fraction
    length = (
        {"steps": max(1, round(share * one.steps))} if one.steps is not None else {"epochs": share * (one.epochs or 0)}
    )
    return [
        replace(one, task=replace(one.task, optim=replace(optim, lr=lr)), **length)
        for lr in rates_around(optim.lr, config.tune)
    ]


def describe_tuning(config: StudyConfig, planned: Iterable[PretrainConfig]) -> list[str]:
    """Returns one line that says how many short trainings there are before the others; none without tuning."""
    if not (groups := plan_tuning(config, planned)):
        return []
    count, share = sum(map(len, groups.values())), config.tune_fraction
    return [
        f"tuning: {count} trainings of {share:.3g} of the length, {config.tune} learning rates for each of "
        f"{len(groups)} recipes, which costs each {config.tune * share:.3g} times its length before it is trained"
    ]


def tune(
    config: StudyConfig,
    planned: list[PretrainConfig],
    study: Study,
    runtime: RuntimeConfig,
    evaluation: Evaluation,
) -> tuple[list[PretrainConfig], tuple[TuningRecord, ...]]:
    """Tries learning rates and returns the trainings with those that were chosen, and a record of each choice.

    The trials are runs of a study of its own in the folder `tuning/`, not tracked in W&B, of which only held-out
    training images of the transfer datasets are looked at; without labels the pretext loss chooses. What is there
    already is not trained again. A rate whose training diverged is not chosen.

    Args:
        config: The study.
        planned: Its trainings, with the learning rates that the others are around.
        study: The study's folder.
        runtime: Where and how the trials run.
        evaluation: Transfer datasets, splits and seed.

    Raises:
        JobsFailed: If a trial failed for another reason than that it diverged, or all of a recipe did.
        Terminated: If a signal asked this process to stop.
    """
    trials, groups = Study(study.root / "tuning"), plan_tuning(config, planned)
    console.print(*describe_tuning(config, planned), highlight=False, soft_wrap=True)
    quiet = replace(runtime, wandb="off")
    prepared = {one: [prepare_training(trial, trials, quiet) for trial in of] for one, of in groups.items()}
    datasets = _labeled(evaluation.transfer or (TransferEntry(config.pretrain.data, config.pretrain.size),))
    chooses = replace(evaluation, protocols=(PROTOCOL,), transfer=datasets)
    everyone = [trial for of in prepared.values() for trial in of]
    _run(trials, quiet, everyone, chooses)
    records = tuple(_choose(one, prepared[one], chooses) for one in groups)
    chosen = {one: record.lr for one, record in zip(groups, records)}
    tuned = []
    for one in planned:
        optim = replace(one.task.optim, lr=chosen[replace(one, seed=config.seed)])
        tuned.append(replace(one, task=replace(one.task, optim=optim)))
    return tuned, records


def _labeled(entries: Iterable[TransferEntry]) -> tuple[TransferEntry, ...]:
    """Returns the datasets that have labels to choose by, each for the protocol that chooses."""
    return tuple(replace(one, protocols=()) for one in entries if open_source(one.data, one.size).classes)


def _run(study: Study, runtime: RuntimeConfig, trials: list[Training], evaluation: Evaluation) -> None:
    """Trains and evaluates what is missing of trials. Raises JobsFailed unless all that failed has diverged."""
    encoders = on_datasets([from_training(one) for one in trials], evaluation.transfer) if evaluation.transfer else []
    if encoders:
        check_evaluation(encoders, evaluation)
    describe_evaluation(study, encoders, evaluation)
    open_ones = [one for one in longest_first(trials) if not _diverged(one)]
    runs = {one.name for one in open_ones}
    left = [one for one in encoders if one.run in runs]
    try:
        run_plan(StudyPlan(study, runtime, open_ones, left, evaluation if left else None))
    except JobsFailed:
        if any(not _is_done(one, evaluation) for one in trials if not _diverged(one)):
            raise


def _diverged(one: Training) -> bool:
    return exists(one.folder / "diverged.json") and not exists(one.folder / "encoder.json")


def _is_done(one: Training, evaluation: Evaluation) -> bool:
    """Returns whether a trial is trained, and evaluated on all datasets."""
    return exists(one.folder / "encoder.json") and len(_val(one, evaluation)) == len(evaluation.transfer)


def _choose(planned: PretrainConfig, trials: list[Training], evaluation: Evaluation) -> TuningRecord:
    """Returns what was chosen for one recipe. Raises JobsFailed if all of its trials diverged."""
    trained = {one: EncoderRecord.read(one.folder / "encoder.json").training for one in trials if not _diverged(one)}
    records, candidates = [], []
    for one, training in trained.items():
        assert training is not None  # a run's record says how it was trained
        lr, loss, val = one.recipe.task.optim.lr, training.pretext["loss"], _val(one, evaluation)
        candidates.append(Candidate(lr, loss, val))
        records.append(
            TrialRecord(
                run=one.name,
                lr=lr,
                steps=training.steps,
                macs=training.macs,
                seconds=training.seconds,
                loss=loss,
                val_accuracy={name: accuracy for name, (accuracy, _) in val.items()},
            )
        )
    if not candidates:
        raise JobsFailed(f"{task_name(planned.task)}: the training diverged with each learning rate that was tried")
    best, by = choose_learning_rate(candidates)
    return TuningRecord(
        task=describe_task(planned.task),
        encoder=planned.encoder,
        init=planned.init,
        steps=trials[0].recipe.steps,
        lr=best.lr,
        by=by,
        trials=tuple(records),
        diverged=tuple(one.recipe.task.optim.lr for one in trials if _diverged(one)),
    )


def _val(one: Training, evaluation: Evaluation) -> dict[str, tuple[float, int]]:
    """Returns the held-out accuracy of a trial on each dataset where it was measured, and of how many images it is."""
    encoders: list[EvaluatedEncoder] = on_datasets([from_training(one)], evaluation.transfer)
    records = [of[PROTOCOL] for of in current_records(Study(one.study), encoders, evaluation).values() if of]
    return {
        f"{of.dataset.name}, {of.encoder.size} px": (of.chosen["val_score"], of.dataset.images["val"]) for of in records
    }


def describe_task(config) -> str:
    """Returns a task's name with the options that are not its own, such as "pirl (transform jigsaw)"."""
    own = flatten(asdict(type(config)()))
    unlike = [f"{name} {value}" for name, value in flatten(asdict(config)).items() if own.get(name) != value]
    return f"{task_name(config)} ({', '.join(unlike)})" if unlike else task_name(config)
