#!/usr/bin/env python3
"""Check that the chart refuses each of bad-values.yaml with a message that names the value.

Usage: bad_values.py HELM
"""

import pathlib
import subprocess
import sys

from ruamel.yaml import YAML

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent.parent / "deploy/chart"


def main():
    cases = YAML(typ="safe", pure=True).load((HERE / "bad-values.yaml").read_text())
    found = 0
    for case in cases:
        flags = [part for value in case["set"] for part in ("--set", value)]
        command = [sys.argv[1], "template", "tidings", str(CHART), *flags]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        said = " ".join(
            line for line in run.stderr.splitlines() if "found symbolic link" not in line
        )
        if run.returncode == 0:
            print(f"{case['set']}: accepted")
            found += 1
        elif case["says"] not in said:
            print(f"{case['set']}: the message lacks {case['says']!r}: {said}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
