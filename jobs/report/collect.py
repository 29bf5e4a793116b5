"""The rows of a study, gathered from its cells."""

from collections import defaultdict
from typing import Any

from jobs.config.evaluation import Evaluation
from jobs.config.recipe import short_hash
from jobs.evaluation.encoders import Judged, labels, with_floors
from jobs.evaluation.external import everything
from jobs.evaluation.records import cell_path
from jobs.report.comparison import Row, stacked
from jobs.study.folder import Study
from jobs.study.similar_runs import flat
from ssl_core.errors import BadInput
from ssl_core.evaluation.statistics import Interval, paired
from ssl_core.storage.files import exists, read_json

LONGEST = 40  # characters of a name
USUAL = "as usual"  # an option that a recipe leaves out where it has its default, see jobs/config/recipe.py


def gather(study: Study) -> list[Row]:
    """The rows of a study. Raises BadInput if it was never evaluated."""
    evaluation = Evaluation.told(study)
    if evaluation is None:
        raise BadInput(f"{study.root}: not evaluated yet; run: tilespin evaluate {study.root}")
    described = {d["run"]: d for d in (read_json(run / "encoder.json") for run in study.runs())}
    everyone = with_floors(everything(study))
    found = {one: _cells(study, one, evaluation) for one in everyone}
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in everyone:
        groups[_recipe(study, one)].append(one)
    for group in groups.values():
        group.sort(key=lambda one: one.seed)
    plain, rows = labels(everyone), []
    apart = _apart(study, [group[0] for group in groups.values() if group[0].run])
    for group in groups.values():
        one = group[0]
        cells = _of_all(group, found)
        trained, floors = bool(one.run or one.brought), [each.floor(each.normalisation) for each in group]
        base = _of_all(floors, found) if trained and all(floor in found for floor in floors) else {}
        alone = sum(other[0].task == one.task for other in groups.values()) == 1
        usual = one.task if trained and alone else plain[one] if len(group) == 1 else one.plain_label
        costs = tuple(described[each.run] for each in group if each.run)
        rows.append(Row(study, tuple(group), apart.get(one.run, usual), cells, costs, _gains(cells, base)))
    return rows


def _apart(study: Study, runs: list[Judged]) -> dict[str, str]:
    """Of tasks that there are several recipes of, by run: the task with the options that not all of them share, such as
    "pirl (transform jigsaw)". None where that would be long, or not tell them apart."""
    options: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for one in runs:
        config = read_json(study.run(one.run) / "config.json")
        options[one.task][one.run] = {k: v for k, v in flat(config).items() if k not in ("seed", "data", "dataset")}
    found = {}
    for task, recipes in options.items():
        keys = dict.fromkeys(key for of in recipes.values() for key in of)
        unlike = [key for key in keys if len({str(of.get(key)) for of in recipes.values()}) > 1]
        names = {
            run: f"{task} ({', '.join(f'{key} {of.get(key, USUAL)}' for key in unlike)})" for run, of in recipes.items()
        }
        if unlike and len(set(names.values())) == len(names) and max(map(len, names.values())) <= LONGEST:
            found |= names
    return found


def _recipe(study: Study, one: Judged) -> str:
    """What runs have in common that differ by their seed only."""
    if one.run:
        config = read_json(study.run(one.run) / "config.json")
        return short_hash({**config, "seed": None, "data": None})
    return short_hash([one.task, one.encoder, one.data, one.size, one.normalisation, one.brought, one.stem])


def _cells(study: Study, one: Judged, evaluation: Evaluation) -> dict[str, dict]:
    dataset = one.source.digest
    paths = {name: cell_path(study, one, name, evaluation, dataset) for name in evaluation.protocols}
    return {name: {**read_json(path), "path": path} for name, path in paths.items() if path and exists(path)}


def _of_all(group: list[Judged], found: dict[Judged, dict[str, dict]]) -> dict[str, tuple[dict, ...]]:
    """By protocol, the cells of all of a group; a protocol that failed for one of them is left out."""
    names = [name for name in found[group[0]] if all(name in found[one] for one in group)]
    return {name: tuple(found[one][name] for one in group) for name in names}


def _gains(cells: dict[str, tuple[dict, ...]], base: dict[str, tuple[dict, ...]]) -> dict[str, Interval]:
    found = {name: (stacked(of), stacked(base.get(name, ()))) for name, of in cells.items()}
    return {
        name: paired(mine, floor)
        for name, (mine, floor) in found.items()
        if mine is not None and floor is not None and mine.shape == floor.shape
    }
