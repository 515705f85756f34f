#!/usr/bin/env python3
"""Check that links between Markdown pages, their anchors, and paths of source files exist.

Prints FILE:LINE: PROBLEM for each finding and exits with 1 if there is any.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
# A path in backticks: from the root of the project, with a known extension.
SOURCE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:rs|py|sh|md|proto|toml|yaml|txt))`")


def tracked(pattern):
    """Tracked files that match a pattern."""
    listed = subprocess.run(
        ["git", "ls-files", pattern], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\n") if name]


def anchors(page):
    """The anchors of a page's headings, as code hosts make them."""
    found = set()
    in_code = False
    for line in page.read_text().splitlines():
        in_code ^= line.lstrip().startswith("```")
        heading = re.match(r"#+ +(.*)", line)
        if heading and not in_code:
            text = re.sub(r"[^\w\- ]", "", heading[1].lower())
            found.add(text.strip().replace(" ", "-"))
    return found


def problems_of(page):
    """Yields (line number, problem) for one page."""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        for target in LINK.findall(line):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists():
                yield number, f"no such file: {target}"
            elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
                yield number, f"no such heading: {target}"
        for path in SOURCE.findall(line):
            is_example = path.split("/")[0] not in {entry.name for entry in ROOT.iterdir()}
            if not is_example and not (ROOT / path).exists():
                yield number, f"no such file: {path}"


def main():
    found = 0
    for page in tracked("*.md"):
        for number, problem in problems_of(page):
            print(f"{page.relative_to(ROOT)}:{number}: {problem}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
