#!/usr/bin/env python3
"""Print the section of a version in CHANGELOG.md, without its heading.

Usage: notes.py VERSION, or notes.py Unreleased. Fails if the section is missing or empty.
"""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


def section(text, version):
    """The lines between the heading of the version and the next heading."""
    heading = re.compile(rf"^## \[?{re.escape(version)}\]?(\s|$)")
    lines, found = [], False
    for line in text.splitlines():
        if line.startswith("## "):
            if found:
                break
            found = bool(heading.match(line))
        elif found:
            lines.append(line)
    return "\n".join(lines).strip()


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: notes.py VERSION")
    version = sys.argv[1]
    notes = section(CHANGELOG.read_text(encoding="utf-8"), version)
    if not notes:
        sys.exit(f"CHANGELOG.md has no section {version}: add `## [{version}] - DATE`")
    print(notes)


if __name__ == "__main__":
    main()
