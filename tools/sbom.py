#!/usr/bin/env python3
"""Print a software bill of materials (CycloneDX 1.5) of the executable and of nats-server.

Usage: sbom.py NATS_SERVER [MACHINE]. Needs cargo. The list holds every crate of Cargo.lock that the
executable can use on such a machine (default: this one), without those that only tests and builds
need.
"""

import json
import pathlib
import subprocess
import sys


def host():
    """Rust's target for this machine."""
    rustc = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in rustc.splitlines() if line.startswith("host:"))


def crates(target):
    """The packages of the executable's dependency tree, without those of tests and builds."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    root = next(
        package["id"] for package in found["packages"]
        if package["name"] == "tidings" and package["source"] is None
    )
    used, pending = set(), [root]
    while pending:
        name = pending.pop()
        if name in used:
            continue
        used.add(name)
        for dependency in nodes[name]["deps"]:
            # A kind of null is a normal dependency; the others are for builds and tests.
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                pending.append(dependency["pkg"])
    return root, [package for package in found["packages"] if package["id"] in used]


def component(package, kind="library"):
    """One entry of the list."""
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    entry = {
        "type": kind,
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "purl": purl,
    }
    if package.get("license"):
        # Old crates write `A/B` for `A OR B`.
        expression = package["license"].replace("/", " OR ").replace("  ", " ")
        entry["licenses"] = [{"expression": expression}]
    return entry


def nats_server(executable):
    """The entry of the nats-server in the image."""
    command = [executable, "--version"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        version = said.split()[-1]
    except OSError:
        # It is for another architecture: tools/nats-server-for.sh names its folder by the version.
        version = "v" + pathlib.Path(executable).parents[1].name
    purl = f"pkg:golang/github.com/nats-io/nats-server/v2@{version}"
    return {
        "type": "application",
        "bom-ref": purl,
        "name": "nats-server",
        "version": version,
        "purl": purl,
        "licenses": [{"expression": "Apache-2.0"}],
    }


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: sbom.py NATS_SERVER [MACHINE]")
    target = f"{sys.argv[2]}-unknown-linux-gnu" if len(sys.argv) == 3 else host()
    root, packages = crates(target)
    packages.sort(key=lambda package: (package["name"], package["version"]))
    of_root = next(package for package in packages if package["id"] == root)
    others = [package for package in packages if package["id"] != root]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(of_root, "application")},
        "components": [nats_server(sys.argv[1]), *map(component, others)],
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    sys.exit(main())
