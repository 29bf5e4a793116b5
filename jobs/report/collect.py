"""Gathers the rows of a comparison from a study's records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

from jobs.config.evaluation import Evaluation
from jobs.config.recipe import short_hash
from jobs.evaluation.encoders import EvaluatedEncoder, with_baselines
from jobs.evaluation.external import list_encoders
from jobs.evaluation.records import current_records
from jobs.pretraining.similar_runs import flatten
from jobs.report.comparison import EncoderRow
from jobs.report.paired import difference
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.evaluation.statistics import Interval
from ssl_core.storage.files import read_json
from ssl_core.storage.records import EncoderRecord, EvaluationRecord, TrainingRecord

MAX_NAME_LENGTH = 60  # characters of a name
PLACES = frozenset({"seed", "data", "dataset", "init_digest"})  # options that set no recipe apart, or not for people
DEFAULT_LABEL = "as usual"  # an option that a recipe leaves out where it has its default, see jobs/config/recipe.py


def collect(study: Study) -> list[EncoderRow]:
    """Returns the rows of a study. Raises UserError if it was never evaluated."""
    evaluation = Evaluation.of_study(study)
    if evaluation is None:
        raise UserError(f"{study.root}: not evaluated yet; run: tilespin evaluate {study.root}")
    evaluation.check()  # the study's protocols may be those of a plug-in that is missing now
    everyone = with_baselines(list_encoders(study))
    found = current_records(study, everyone, evaluation)
    configs = _read_configs(study, everyone)
    groups: dict[tuple, list[EvaluatedEncoder]] = defaultdict(list)
    earlier: dict[tuple, dict[int, list[EvaluatedEncoder]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(everyone, key=lambda one: (one.step or 0, one.seed)):
        key = _recipe(configs, one), one.data, one.size
        (groups[key] if one.step is None else earlier[key][one.step]).append(one)
    unique, rows = _unique_labels(groups.values()), []
    firsts = [group[0] for group in groups.values() if group[0].run]
    apart, recipes = _distinguishing_names(configs, firsts), _recipe_names(configs, firsts, bool(study.read().tuning))
    for key, group in groups.items():
        one = group[0]
        records = _of_all_seeds(group, found)
        trained, baselines = bool(one.run or one.external), [each.random_init(each.normalization) for each in group]
        base = _of_all_seeds(baselines, found) if trained and all(baseline in found for baseline in baselines) else {}
        here = [other[0] for other in groups.values() if (other[0].data, other[0].size) == (one.data, one.size)]
        only_one = sum(other.task == one.task for other in here) == 1
        default_name = one.task if trained and only_one else unique[one]
        row = EncoderRow(
            study,
            tuple(group),
            apart.get(one.run or "", default_name),
            records,
            _trainings(study, group),
            _gains(records, base),
            base,
            recipes.get(one.run or "", ""),
        )
        rows.append(replace(row, earlier=_earlier(row, earlier[key], found)))
    return rows


def _earlier(
    row: EncoderRow,
    kept: dict[int, list[EvaluatedEncoder]],
    found: dict[EvaluatedEncoder, dict[str, EvaluationRecord]],
) -> tuple[EncoderRow, ...]:
    """Returns a row for each step at which all seeds of a recipe kept their encoders, which are in `kept` by step."""
    rows = []
    for step, group in sorted(kept.items()):
        if len(group) == len(row.encoders) and (records := _of_all_seeds(group, found)):
            trainings, gains = _trainings(row.study, group), _gains(records, row.baselines)
            name = f"{row.name}, step {step:,}"
            one = replace(row, encoders=tuple(group), name=name, records=records, trainings=trainings, gains=gains)
            rows.append(one)
    return tuple(rows)


def _trainings(study: Study, group: Iterable[EvaluatedEncoder]) -> tuple[TrainingRecord, ...]:
    """Returns what the trainings of encoders had cost, by seed; that of an encoder from elsewhere is not counted."""
    folders = (one.folder(study) for one in group if one.run)
    trained = (EncoderRecord.read(folder / "encoder.json").training for folder in folders if folder)
    return tuple(one for one in trained if one)


def _unique_labels(groups: Iterable[list[EvaluatedEncoder]]) -> dict[EvaluatedEncoder, str]:
    """Returns a name for each group of seeds, by its first encoder, unique among those of its dataset, which has a
    table of its own.

    It is the short label, with what sets the group apart where several have the same.
    """
    alike: dict[tuple, list[list[EvaluatedEncoder]]] = defaultdict(list)
    for group in groups:
        one = group[0]
        alike[one.data, one.size, one.short_label].append(group)
    found = {}
    for (*_, label), of in alike.items():
        details = [(group[0].encoder, f"built for {group[0].built} px", _seeds(group)) for group in of]
        differing = [i for i, values in enumerate(zip(*details)) if len(set(values)) > 1]
        for group, values in zip(of, details):
            apart = ", ".join(values[i] for i in differing)
            found[group[0]] = f"{label} ({apart})" if apart else label
    return found


def _seeds(group: list[EvaluatedEncoder]) -> str:
    """Returns the seeds of a group as text."""
    return f"seed{'s' if len(group) > 1 else ''} {' '.join(str(one.seed) for one in group)}"


def _read_configs(study: Study, encoders: Iterable[EvaluatedEncoder]) -> dict[str, dict[str, Any]]:
    """Returns, by run, its config.json, which is read once."""
    runs = dict.fromkeys(one.run for one in encoders if one.run)
    return {run: read_json(study.run(run) / "config.json") for run in runs}


def _recipe_names(configs: Mapping[str, dict[str, Any]], runs: list[EvaluatedEncoder], tuned: bool) -> dict[str, str]:
    """Returns, by run, the name of what it trains, which trainings of several lengths have in common.

    Learning rates that were tuned, for each length by itself, set no recipe apart.
    """
    ignored = PLACES | {"steps", "epochs"} | ({"lr"} if tuned else set())
    alike: dict[str, list[EvaluatedEncoder]] = defaultdict(list)
    for one in runs:
        config = flatten(configs[one.run or ""])
        alike[short_hash({name: of for name, of in config.items() if name not in ignored})].append(one)
    names = _distinguishing_names(configs, [of[0] for of in alike.values()], ignored)
    found = {}
    for key, of in alike.items():
        tasks = sum(other[0].task == of[0].task for other in alike.values())
        plain = of[0].task if tasks == 1 else f"{of[0].task} {key}"
        found |= {one.run or "": names.get(of[0].run or "", plain) for one in of}
    return found


def _distinguishing_names(
    configs: Mapping[str, dict[str, Any]], runs: list[EvaluatedEncoder], ignored: Set[str] = PLACES
) -> dict[str, str]:
    """Returns, by run, names of tasks that several recipes have: the task with the options in which they differ.

    An example is "pirl (transform jigsaw)". A task has none where they would be long, or equal.
    """
    options: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for one in runs:
        assert one.run is not None  # neither a floor nor an encoder from elsewhere
        options[one.task][one.run] = {k: v for k, v in flatten(configs[one.run]).items() if k not in ignored}
    found = {}
    for task, recipes in options.items():
        keys = dict.fromkeys(key for of in recipes.values() for key in of)
        unlike = [key for key in keys if len({str(of.get(key)) for of in recipes.values()}) > 1]
        names = {
            run: f"{task} ({', '.join(f'{key} {of.get(key, DEFAULT_LABEL)}' for key in unlike)})"
            for run, of in recipes.items()
        }
        if unlike and len(set(names.values())) == len(names) and max(map(len, names.values())) <= MAX_NAME_LENGTH:
            found |= names
    return found


def _recipe(configs: Mapping[str, dict[str, Any]], one: EvaluatedEncoder) -> str:
    """Returns what runs have in common that differ by their seed only."""
    if one.run:
        return short_hash({**configs[one.run], "seed": None, "data": None})
    return short_hash([one.task, one.encoder, one.normalization, one.external, one.stem])


def _of_all_seeds(
    group: list[EvaluatedEncoder], found: dict[EvaluatedEncoder, dict[str, EvaluationRecord]]
) -> dict[str, tuple[EvaluationRecord, ...]]:
    """Returns, by protocol, the records of all of a group; a protocol that failed for one of them is left out."""
    names = [name for name in found[group[0]] if all(name in found[one] for one in group)]
    return {name: tuple(found[one][name] for one in group) for name in names}


def _gains(
    records: dict[str, tuple[EvaluationRecord, ...]], base: dict[str, tuple[EvaluationRecord, ...]]
) -> dict[str, Interval]:
    found = {name: difference(of, base.get(name, ())) for name, of in records.items()}
    return {name: gain for name, gain in found.items() if gain is not None}
