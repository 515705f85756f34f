#!/usr/bin/env python3
"""Write deploy/chart/README.md from values.yaml; with --check compare it only.

The comment above a key describes it. A map whose keys have no meaning of their own, such as
`resources`, is one row.
"""

import json
import pathlib
import re
import sys

from ruamel.yaml import YAML

CHART = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy/chart"
KEY = re.compile(r"^( *)([A-Za-z]+):(.*)$")
# Maps that are one row.
WHOLE = {"resources"}

HEAD = """<!-- Generated from values.yaml by `make chart-readme`. Do not edit. -->

# Chart `tidings`

Installs [Tidings](../../README.md) in one of three modes:

- `single`: one pod that runs everything, with its own NATS server and a volume.
- `standard`: ingest, routers and workers in pods of their own, with three NATS servers.
- `member`: the ingest of a member of a [fleet](../../docs/fleet.md), which stores events while the
  hub cannot be reached.

How to install it, step by step: [docs/install.md](../../docs/install.md).

```sh
helm install tidings deploy/chart --namespace tidings --create-namespace \\
  --set image.repository=IMAGE --set mode=standard
helm test tidings --namespace tidings
```

`values.schema.json` refuses unknown keys and values out of range.

## Values

| value | default | meaning |
|---|---|---|
"""


def comments(text):
    """The comment above each key, by its path."""
    found, path, pending = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            pending.append(stripped.lstrip("# "))
            continue
        match = KEY.match(line)
        if match:
            path = path[: len(match[1]) // 2] + [match[2]]
            found[".".join(path)] = " ".join(pending)
        pending = []
    return found


def rows(values, described, prefix=""):
    """Yields (path, default, description) for each value."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and key not in WHOLE:
            if described.get(path):
                yield path, None, described[path]
            yield from rows(value, described, f"{path}.")
        else:
            yield path, value, described.get(path, "")


def readme():
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = YAML(typ="safe", pure=True).load(text)
    lines = []
    for path, value, meaning in rows(values, comments(text)):
        default = "" if value is None else f"`{json.dumps(value)}`"
        lines.append(f"| `{path}` | {default} | {meaning} |\n".replace("|  |", "| |"))
    return HEAD + "".join(lines)


def main():
    path = CHART / "README.md"
    if sys.argv[1:] != ["--check"]:
        path.write_text(readme(), encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != readme():
        print("deploy/chart/README.md is not up to date: run `make chart-readme`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
