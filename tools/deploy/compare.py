#!/usr/bin/env python3
"""Compare the objects that the chart renders with those of the Kustomize overlays.

Usage: compare.py CHART_YAML KUSTOMIZE_YAML. Prints each difference, and exits with 1 if there is
any.

Ignored: labels of objects, annotations, the pull policy, and objects that only one of the two can
have: the Namespace of Kustomize, and the chart's generated Secret and test pod.
"""

import copy
import json
import re
import sys

from ruamel.yaml import YAML

# The suffix that Kustomize adds to generated ConfigMaps.
HASH = re.compile(r"^(tidings(?:-nats)?)-[a-z0-9]{10}$")


def load(path):
    """The objects of a file, by kind and name."""
    objects = {}
    with open(path, encoding="utf-8") as file:
        for item in YAML(typ="safe", pure=True).load_all(file):
            if item and not is_one_sided(item):
                normal = normalize(item)
                key = f"{normal['kind']}/{normal['metadata']['name']}"
                if key in objects:
                    sys.exit(f"{path}: {key} appears twice")
                objects[key] = normal
    return objects


def is_one_sided(item):
    """Whether only the chart, or only Kustomize, has this object."""
    annotations = item["metadata"].get("annotations") or {}
    return item["kind"] in ("Namespace", "Secret") or "helm.sh/hook" in annotations


def normalize(item):
    """The object without what may differ."""
    item = copy.deepcopy(item)
    metadata = item["metadata"]
    item["metadata"] = {
        key: value for key, value in metadata.items() if key in ("name", "namespace")
    }
    if item["kind"] == "ConfigMap":
        item["metadata"]["name"] = HASH.sub(r"\1", metadata["name"])
        item["data"] = {key: parsed(key, text) for key, text in item["data"].items()}
    template = item.get("spec", {}).get("template")
    if template and "spec" in template:
        template["metadata"].pop("annotations", None)
        for container in template["spec"]["containers"]:
            container.pop("imagePullPolicy", None)
            container.get("volumeMounts", []).sort(key=lambda mount: mount["name"])
        volumes = template["spec"].get("volumes", [])
        # A component puts its volumes first. The order has no meaning.
        volumes.sort(key=lambda volume: volume["name"])
        for volume in volumes:
            if "configMap" in volume:
                volume["configMap"]["name"] = HASH.sub(r"\1", volume["configMap"]["name"])
    return item


def parsed(name, text):
    """The content of a file in a ConfigMap, without comments and blank lines."""
    if name.endswith(".yaml"):
        return YAML(typ="safe", pure=True).load(text)
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def differences(path, chart, kustomize):
    """Yields (path, value of the chart, value of Kustomize)."""
    if isinstance(chart, dict) and isinstance(kustomize, dict):
        for key in sorted(chart.keys() | kustomize.keys()):
            yield from differences(f"{path}.{key}", chart.get(key), kustomize.get(key))
    elif isinstance(chart, list) and isinstance(kustomize, list) and len(chart) == len(kustomize):
        for index, (one, other) in enumerate(zip(chart, kustomize)):
            yield from differences(f"{path}[{index}]", one, other)
    elif chart != kustomize:
        yield path, chart, kustomize


def main():
    chart, kustomize = load(sys.argv[1]), load(sys.argv[2])
    if len(chart) < 10:
        sys.exit(f"{sys.argv[1]}: only {len(chart)} objects")
    found = 0
    for key in sorted(chart.keys() | kustomize.keys()):
        if key not in chart or key not in kustomize:
            print(f"{key}: only in {'the chart' if key in chart else 'Kustomize'}")
            found += 1
            continue
        for path, one, other in differences("", chart[key], kustomize[key]):
            print(f"{key}{path}: chart {json.dumps(one)}, Kustomize {json.dumps(other)}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
