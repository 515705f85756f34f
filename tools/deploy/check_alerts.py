#!/usr/bin/env python3
"""Check what promtool does not know of deploy/monitoring: alerts.yaml and dashboard.json.

- Each alert has a severity and names its runbook page, and each page belongs to an alert.
- Each metric is in docs/reference/metrics.md.
- The PrometheusRule of the component has the same groups; --write writes it.

--queries prints the queries of the dashboard as recording rules, for promtool.
"""

import io
import json
import pathlib
import re
import sys

from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DASHBOARD = ROOT / "deploy/monitoring/dashboard.json"
ALERTS = ROOT / "deploy/monitoring/alerts.yaml"
RULE = ROOT / "deploy/components/monitoring/prometheus-rule.yaml"
RUNBOOKS = ROOT / "docs/runbooks"
METRIC = re.compile(r"\btidings_\w+")
HEAD = """# Generated from deploy/monitoring/alerts.yaml by `make alerts`. Do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tidings
  labels:
    app.kubernetes.io/name: tidings
    app.kubernetes.io/instance: tidings
spec:
"""


def rule():
    """The text of the PrometheusRule: the groups without comments, indented."""
    groups = YAML(typ="safe", pure=True).load(ALERTS.read_text(encoding="utf-8"))
    text = io.StringIO()
    writer = YAML(pure=True)
    writer.width = 10000
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.dump(groups, text)
    lines = text.getvalue().splitlines()
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


def queries():
    """Yields (title of the panel, expression) of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def problems():
    groups = YAML(typ="safe", pure=True).load(ALERTS.read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"]]
    known = set(METRIC.findall((ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")))
    names = {alert["alert"] for alert in alerts}
    for alert in alerts:
        name = alert["alert"]
        if alert.get("labels", {}).get("severity") not in ("critical", "warning"):
            yield f"{name}: labels.severity must be critical or warning"
        page = f"docs/runbooks/{name}.md"
        if alert.get("annotations", {}).get("runbook") != page:
            yield f"{name}: annotations.runbook must be {page}"
        if not (ROOT / page).exists():
            yield f"{name}: {page} does not exist"
    expressions = [(alert["alert"], alert["expr"]) for alert in alerts] + list(queries())
    for name, expression in expressions:
        for metric in METRIC.findall(expression):
            if metric not in known and metric.removesuffix("_bucket") not in known:
                yield f"{name}: {metric} is not in docs/reference/metrics.md"
    for page in RUNBOOKS.glob("*.md"):
        if page.stem != "README" and page.stem not in names:
            yield f"{page.relative_to(ROOT)}: no alert has this name"
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    for name in sorted(names):
        if f"({name}.md)" not in index:
            yield f"docs/runbooks/README.md: {name} is missing"
    if not RULE.exists() or RULE.read_text(encoding="utf-8") != rule():
        yield f"{RULE.relative_to(ROOT)} is not up to date: run `make alerts`"


def main():
    if sys.argv[1:] == ["--write"]:
        RULE.write_text(rule(), encoding="utf-8")
        return 0
    if sys.argv[1:] == ["--queries"]:
        rules = [
            {"record": f"panel:{index}", "expr": expression}
            for index, (_, expression) in enumerate(queries())
        ]
        print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        return 0
    found = list(problems())
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
