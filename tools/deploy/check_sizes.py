#!/usr/bin/env python3
"""Compare the table "Sizes" of docs/install.md with the values of the chart.

Requests and limits must be those of values.yaml. They must exceed what `make e2e` measured by the
margins that the page states.
"""

import pathlib
import re
import sys

from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/install.md"
# The rows, and their keys in values.yaml.
ROWS = {"`single`": "single", "`member`": "member", "ingest": "ingest", "router": "router",
        "worker": "worker", "NATS server": "nats"}
COLUMNS = ["CPU, p95", "memory, p95", "CPU request", "memory request", "memory limit"]
# Factors over the 95th percentiles. The page states them, too.
REQUEST, LIMIT = 1.25, 2
UNITS = {"m": 1, "": 1000, "Mi": 1, "Gi": 1024}


def amount(text):
    """Thousandths of a CPU, or MiB."""
    number, unit = re.fullmatch(r"([0-9]+)(m|Mi|Gi|)", text).groups()
    return int(number) * UNITS[unit]


def table(text):
    """The rows of the table, as dicts."""
    lines = text.split("\n## Sizes\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in lines if line.startswith("|")]
    head, _, *body = rows
    return {row[0]: dict(zip(head, row)) for row in body}


def problems(rows, values):
    for name, key in ROWS.items():
        if name not in rows:
            yield f"there is no row `{name}`"
            continue
        row = rows[name]
        missing = [column for column in COLUMNS if column not in row]
        if missing:
            yield f"there is no column {missing}"
            return
        resources = values[key]["resources"]
        chart = {"CPU request": resources["requests"]["cpu"],
                 "memory request": resources["requests"]["memory"],
                 "memory limit": resources["limits"]["memory"]}
        for column, value in chart.items():
            if row[column] != value:
                yield f"{name}, {column}: the table has {row[column]}, the chart {value}"
        cpu, memory = amount(row["CPU, p95"]), amount(row["memory, p95"])
        for column, least in [("CPU request", cpu * REQUEST), ("memory request", memory * REQUEST),
                              ("memory limit", memory * LIMIT)]:
            if amount(row[column]) < least:
                yield f"{name}, {column}: {row[column]} is less than {least:.0f}, with the margin"


def main():
    values = YAML(typ="safe").load((ROOT / "deploy/chart/values.yaml").read_text())
    found = list(problems(table(PAGE.read_text()), values))
    for problem in found:
        print(f"docs/install.md, Sizes: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
