"""What the schema of a Parquet file says of its columns, as Hugging Face's libraries write it."""

import json
from typing import Any

import pyarrow as pa


def features(schema: pa.Schema) -> dict[str, dict]:
    """Returns what Hugging Face's metadata say of each column; nothing if there are none, or they are damaged."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Returns the names of the classes of each column whose values are numbers of classes, or lists of them."""
    found = {name: _class_names(feature) for name, feature in features(schema).items() if name in schema.names}
    return {name: names for name, names in found.items() if names}


def _class_names(feature: dict[str, Any]) -> list[str]:
    inner = feature.get("feature")  # of a list
    if isinstance(inner, dict):
        return _class_names(inner)
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list):
        return []
    return names if all(isinstance(name, str) for name in names) else []


def with_names(value: Any, classes: list[str]) -> Any:
    """Returns the names of the classes whose numbers a value of a column is, or has in a list."""
    if isinstance(value, list):
        return [with_names(one, classes) for one in value]
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value
