#!/usr/bin/env python3
"""Check wording and line width of every tracked text file. See CONTRIBUTING.md.

Prints FILE:LINE: PROBLEM for each finding and exits with 1 if there is any.
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PHRASES = ROOT / "tools/phrases.txt"
WIDTH = 100

# Text that other people wrote, or that a tool generates from checked text.
SKIP = [
    "LICENSE", "*.lock", "*.sum", "*.mod", "*.snap", "*.proptest-regressions", "*.json", "*.hex",
    "*requirements*.txt", "tests/vectors/data/*", "tests/vectors/routing/*", "tests/fuzz/corpus/*", "tests/fixtures/*", "console/dist/*", "CHANGELOG.md", "tools/phrases.txt", "tools/check-language.py",
]
# Only the wording of these is checked: their lines cannot be wrapped, or a generator wraps them.
WIDE = ["*.yaml", "*.yml", "*.toml", "docs/reference/*", "docs/providers.md"]


def tracked():
    """Yields every tracked text file that the project words itself."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not any(fnmatch.fnmatch(name, pattern) for pattern in SKIP):
            yield name


def phrases():
    """Yields (compiled expression, replacement) for each line of phrases.txt."""
    for line in PHRASES.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            expression, replacement = line.split(" => ")
            yield re.compile(rf"(?<![\w-])(?:{expression})(?![\w-])", re.IGNORECASE), replacement


def wide_lines(name, lines):
    """Yields the numbers of lines above the width; tables, links and string literals that hold an
    address may be longer, because they cannot be wrapped."""
    in_code = False
    for number, line in enumerate(lines, 1):
        if name.endswith(".md") and line.lstrip().startswith("```"):
            in_code = not in_code
        fixed = "://" in line or line.startswith("|") or (in_code and name.endswith(".md"))
        if len(line) > WIDTH and not fixed:
            yield number


def words_of(line):
    """The line with identifiers split into words, so that names are checked too."""
    return re.sub(r"(?<=[a-z0-9])_(?=[a-z0-9])", " ", line)


def main():
    banned = list(phrases())
    # One expression for all is much faster than one after the other on lines without a finding.
    any_banned = re.compile("|".join(e.pattern for e, _ in banned), re.IGNORECASE)
    found = 0
    for name in tracked():
        try:
            lines = (ROOT / name).read_text().splitlines()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        is_wide = any(fnmatch.fnmatch(name, pattern) for pattern in WIDE)
        for number in () if is_wide else wide_lines(name, lines):
            print(f"{name}:{number}: longer than {WIDTH} columns")
            found += 1
        before = ""
        for number, line in enumerate(lines, 1):
            # With the end of the line above, so that "dead" and "letter" may be on two lines.
            content = re.sub(r"^\s*(?://[/!]?|[#*-])?\s*", "", line)
            text = words_of(f"{before} {content}")
            start = len(words_of(before)) + 1
            before = line.rsplit(" ", 1)[-1]
            if not any_banned.search(text):
                continue
            for expression, replacement in banned:
                match = expression.search(text)
                if match and match.end() > start:
                    print(f"{name}:{number}: '{match[0]}': write: {replacement}")
                    found += 1
    if found:
        print(f"{found} findings; the rules are in CONTRIBUTING.md", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
