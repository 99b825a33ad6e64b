"""The chart's page, its schema, and the table of what sets of values make: ``python -m benchmarks.chart``.

Page and schema are made from the comments of deploy/helm/values.yaml, the table by rendering tests/deploy/sets.yaml.

A comment that begins with ``# --`` describes the next key; a word in brackets behind it is the key's type, where the
default does not show it. A key without a comment is one that another part has, too, under the same name.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from reco_plugin.files import whole_file

from .page import write_blocks

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm"
SETS = ROOT / "tests" / "deploy" / "sets.yaml"
Objects = dict[str, Any]
"""Objects of a release, by kind and name."""
Schema = dict[str, Any]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_LABELS: Schema = {"type": "object", "additionalProperties": _TEXT}
_SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
_QUANTITY: Schema = {"type": ["string", "number"], "pattern": r"^[0-9.]+([eE]?[0-9]*|m|[kMGTPE]|[KMGTPE]i)$|^$"}
_QUANTITIES: Schema = {"type": "object", "additionalProperties": _QUANTITY}


def _closed(**properties: Schema) -> Schema:
    """An object with these keys and no others; a refusal lists them. Objects below it of fixed keys must be there.

    Null takes a default away; what may be left empty is then as if it were empty.
    """
    names = {"propertyNames": {"enum": sorted(properties)}, "additionalProperties": False}
    needed = sorted(name for name, each in properties.items() if "required" in each)
    return {"type": "object", "properties": properties, **names, "required": needed}


def _without(schema: Schema, name: str) -> Schema:
    return {key: value for key, value in schema.items() if key != name}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


TYPES: dict[str, Schema] = {
    "bool": {"type": "boolean"},
    "class": {"type": ["string", "null"]},
    "class?": {"type": ["string", "null"]},
    "count": {"type": ["integer", "string"], "pattern": "^[0-9]+%$"},
    "image": _closed(
        repository=_TEXT,
        tag=_TEXT,
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    ),
    "env": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}}},
    "int": _WHOLE,
    "int?": _or_null(_WHOLE),
    "labels": _LABELS,
    "map": {"type": "object"},
    "number": {"type": "number"},
    "object": {"type": "object"},
    "objects": {"type": "array", "items": {"type": "object"}},
    "ports": {"type": "array", "items": _WHOLE},
    "quantity": _QUANTITY,
    "resources": _without(_closed(requests=_QUANTITIES, limits=_QUANTITIES, claims={"type": "array"}), "required"),
    "settings": {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Z][A-Z0-9_]*$"},
        "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}, {"type": "object"}]},
    },
    "strings": {"type": "array", "items": _TEXT},
    "text": _TEXT,
}
"""The types of values, by the word in brackets."""


class Value(NamedTuple):
    """A value of the chart: its path, type, default and description."""

    path: str
    type: str
    default: Any
    text: str


_DESCRIBES = re.compile(r"# -- (?:\(([\w?]+)\) )?(.*)")


def read_values(text: str) -> list[Value]:
    """All values of a values.yaml with such comments.

    Raises:
        ValueError: a key has no comment, and no key of that name before it has one; or its type is unknown.
    """
    values: list[Value] = []
    known: dict[str, tuple[str, str]] = {}
    for path, default, own in _commented(yaml.compose(text), (), text.splitlines()):
        name = path.rpartition(".")[2]
        if own[1]:
            known.setdefault(name, own)
        elif name not in known:
            raise ValueError(f"{path} of values.yaml has no comment that begins with # --")
        named, words = own if own[1] else known[name]
        kind = named or _type_of(default)
        if kind not in TYPES:
            raise ValueError(f"{path} of values.yaml has the type {kind!r}, which is none of {', '.join(TYPES)}")
        values.append(Value(path, kind, default, words))
    return values


def _commented(node: Any, path: tuple[str, ...], lines: list[str]) -> Iterator[tuple[str, Any, tuple[str, str]]]:
    """Path, default, type and description of each key that is a value, and no part that holds others."""
    for key, value in node.value:
        here, described = (*path, key.value), _comment_above(lines, key.start_mark.line)
        is_part = isinstance(value, yaml.MappingNode) and not value.flow_style and not described[1]
        if is_part:
            yield from _commented(value, here, lines)
        else:
            constructor = yaml.SafeLoader("")
            yield ".".join(here), constructor.construct_document(value), described


def _comment_above(lines: list[str], line: int) -> tuple[str, str]:
    """Type and description that stand directly above a line; empty where nothing does."""
    words: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        words.insert(0, lines[line].strip())
        if found := _DESCRIBES.match(words[0]):
            return found[1] or "", " ".join([found[2], *(word.removeprefix("# ") for word in words[1:])])
    return "", ""


def _type_of(default: Any) -> str:
    return {bool: "bool", str: "text", int: "int", float: "number"}.get(type(default), "?")


def make_schema(values: list[Value]) -> Schema:
    """The JSON schema of these values: each of its type, and no others."""
    tree: Schema = {}
    for value in values:
        *parents, last = value.path.split(".")
        place = tree
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = {"description": value.text, **TYPES[value.type]}
    described = {value.path for value in values}

    def close(place: Schema, path: str) -> Schema:
        if path in described:
            return place
        return _closed(**{name: close(each, f"{path}.{name}".lstrip(".")) for name, each in place.items()})

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **close(tree, "")}


def make_page(values: list[Value]) -> str:
    """The chart's README."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    rows = [
        f"| `{value.path}` | {value.type} | `{json.dumps(value.default, ensure_ascii=False)}` | {value.text} |".replace(
            "||", "| |"
        )
        for value in values
    ]
    return "\n".join(
        [_PAGE.format(**about).rstrip(), "", "| value | type | default | |", "|---|---|---|---|", *rows, ""]
    )


_PAGE = """<!-- Made by `python -m benchmarks.chart` from values.yaml. Do not edit. -->
# {name} {version}

{description}

```
helm install reco deploy/helm -n reco --create-namespace -f deploy/helm/values-small.yaml     # a trial, on one node
helm install reco deploy/helm -n reco -f mine.yaml                                            # production
helm test reco -n reco --logs
```

[Deployment](../../docs/deployment.md#3-kubernetes) has the steps, [Kubernetes](../../docs/kubernetes.md) jobs,
autoscaling, policies and what each set of values makes, [operations](../../docs/operations.md) backups and upgrades.
Kubernetes {kubeVersion}, Helm 3 or 4.

Types: a *quantity* is as `500m` or `50Gi`, a *count* a number or `25%`; *labels* are texts by name, a *map* or an
*object* anything by name, *settings* values of any kind by the variable's name; a *class* is a name, null or `""`.
What ends in `?` may be null. A word that is not here is refused.
"""


def read_sets() -> dict[str, dict[str, Any]]:
    """Sets of values by name, as of :data:`SETS`; ``!file NAME`` there is a values file of the chart."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    def read(_: Any, node: Any) -> Any:
        return yaml.safe_load((CHART / node.value).read_text(encoding="utf-8"))

    Loader.add_constructor("!file", read)
    sets: dict[str, dict[str, Any]] = yaml.load(SETS.read_text(encoding="utf-8"), Loader)
    return sets


def render(values: dict[str, Any], name: str = "reco", namespace: str = "reco") -> dict[str, str]:
    """The chart's files with these values: name -> text, as Helm sends it. Needs helm-python-sdk, of extra ``dev``."""
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        files: dict[str, str] = chart.render(values, name=name, namespace=namespace)
    return files


def _objects(values: dict[str, Any]) -> Objects:
    texts = [text for name, text in render(values).items() if name.endswith(".yaml")]
    made = [each for text in texts for each in yaml.load_all(text, _LOADER) if each]
    return {f"{each['kind']} {each['metadata']['name']}": each for each in made}


def make_table(sets: dict[str, dict[str, Any]]) -> str:
    """What each set of values makes beside the defaults: a Markdown table."""
    defaults = _objects({})
    rows = [
        f"| {name} | {_written(values)} | {_compared(_objects(values), defaults)} |" for name, values in sets.items()
    ]
    everything = ", ".join(sorted(defaults))
    return "\n".join(
        [f"The defaults make {everything}.", "", "| set | values | beside the defaults |", "|---|---|---|", *rows]
    )


def _written(values: dict[str, Any]) -> str:
    text = yaml.safe_dump(values, default_flow_style=True, width=10_000, sort_keys=False).strip()[1:-1]
    if len(text) > _SHOWN:
        return f"`{text[:_SHOWN].rpartition(', ')[0]}` …"
    return f"`{text}`" if text else ""


_SHOWN = 200
"""Characters of a set; all of it stands in its file."""


def _compared(made: Objects, defaults: Objects) -> str:
    if not made.keys() & defaults.keys():
        return "the same objects under other names"
    changed = [name for name in made.keys() & defaults.keys() if made[name] != defaults[name]]
    parts = [
        ("more", sorted(made.keys() - defaults.keys())),
        ("less", sorted(defaults.keys() - made.keys())),
        ("other", sorted(changed)),
    ]
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts if names)


def main() -> None:
    """Write README.md and values.schema.json of the chart, and the table of docs/kubernetes.md."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.dumps(make_schema(values), indent=1, ensure_ascii=False) + "\n"
    for name, text in (("README.md", make_page(values)), ("values.schema.json", schema)):
        with whole_file(CHART / name) as part:
            part.write_text(text, encoding="utf-8")
    write_blocks({"sets": make_table(read_sets())}, ROOT / "docs" / "kubernetes.md")


if __name__ == "__main__":
    main()
