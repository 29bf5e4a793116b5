"""Recognizes folders or shards that are splits by their names, such as train/, val2017/ or birds_test/."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

Role = Literal["train", "test", "val", "unlabeled"]

ROLES: dict[str, Role] = {
    "unlabelled": "unlabeled",
    "unlabeled": "unlabeled",
    "unsupervised": "unlabeled",
    "unsup": "unlabeled",
    "nolabel": "unlabeled",
    "nolabels": "unlabeled",
    "notlabelled": "unlabeled",
    "notlabeled": "unlabeled",
    "unlab": "unlabeled",
    "trainval": "train",
    "training": "train",
    "train": "train",
    "testing": "test",
    "test": "test",
    "holdout": "test",
    "validation": "val",
    "validate": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "evaluation": "val",
    "eval": "val",
}
# Words beside a split's that say nothing of what is in it
PLAIN = {
    *("set", "sets", "split", "data", "dataset", "folder", "dir", "part", "partition", "samples", "sample", "final"),
    *("image", "images", "img", "imgs", "pics", "pictures", "photos", "jpg", "jpeg", "png", "crops", "cropped"),
    *("small", "full", "large", "mini", "raw", "resized", "clean", "new", "all", "shard", "shards", "px", "v"),
}
_WORD = re.compile(rf"({'|'.join(ROLES)})({'|'.join(sorted(PLAIN, key=len, reverse=True))})?")


_TWO_WORDS = re.compile(
    r"(?<![^\W\d_])(un|no|not|hold)[\W_]+(lab[^\W\d_]*|out)(?![^\W\d_])", re.IGNORECASE
)  # un-labelled


_OF_SEVERAL = re.compile(r"-\d+-of-\d+$")  # train-00000-of-00004


def split_roles(names: Iterable[str]) -> dict[str, Role]:
    """Finds the names that are those of splits.

    A name of nothing but a role's word and words without meaning (`train`, `Training_Set`, `val2017`) is one. With
    other words (`birds_test`) it is one only beside a sibling that differs in the role alone (`birds_train`; or
    `birds`, if there is no other): `train_station` and `test_tube` are objects, also beside `station`.

    Args:
        names: All names of one folder.

    Returns:
        The role of each name that is a split's.
    """
    parsed = {name: _parsed(name) for name in names}
    alike: dict[tuple[str, ...], set[Role | None]] = defaultdict(set)
    for role, rest in parsed.values():
        if role or len(parsed) == 2:
            alike[rest].add(role)
    return {name: role for name, (role, rest) in parsed.items() if role and (not rest or len(alike[rest]) > 1)}


def roles_of_paths(paths: Iterable[str], endings: tuple[str, ...] = ()) -> dict[str, Role]:
    """Finds the files whose folder's name, or whose own, is that of a split.

    Args:
        paths: The files, with slashes.
        endings: What the names of files end in, in lower case; without, their own names say nothing.

    Returns:
        The role of each file that has one.
    """
    paths = list(paths)

    def stem(path: str) -> str:
        base = path.rpartition("/")[2]
        whole = next((base[: -len(end)] for end in endings if base.lower().endswith(end)), "")
        return _OF_SEVERAL.sub("", whole)

    of_stems = split_roles({stem(path) for path in paths} - {""})
    of_folders = split_roles({part for path in paths for part in path.split("/")[:-1]})
    found: dict[str, Role] = {}
    for path in paths:
        parents = reversed(path.split("/")[:-1])
        roles: list[Role] = [of_folders[part] for part in parents if part in of_folders]
        if role := roles[0] if roles else of_stems.get(stem(path)):
            found[path] = role
    return found


def _parsed(name: str) -> tuple[Role | None, tuple[str, ...]]:
    """Returns the role in a name, and its words that are neither a role's nor plain."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = re.findall(r"[^\W\d_]+", _TWO_WORDS.sub(r"\1\2", apart))
    roles: list[Role] = []
    rest = []
    for word in (word.lower() for word in words):
        if found := _WORD.fullmatch(word):
            roles.append(ROLES[found[1]])
        elif word not in PLAIN:
            rest.append(word)
    role: Role | None = "unlabeled" if "unlabeled" in roles else roles[0] if roles else None
    return role, tuple(rest)
