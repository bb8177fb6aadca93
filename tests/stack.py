"""The template as CloudFormation gets it: transformed by SAM, its references filled in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cfnlint.decode.cfn_yaml

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Stack:
    """What of the template is watched: alarms, the dashboard's widgets, queries, and all metrics they name."""

    resources: dict[str, Any]
    dashboard: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        body = self.resources["GuardDashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        # The references stand within strings: a name of the resource will do.
        self.dashboard = json.loads(re.sub(r"\$\{([\w:.]+)\}", r"\1", body))

    @property
    def alarms(self) -> dict[str, dict[str, Any]]:
        return {
            name: resource["Properties"]
            for name, resource in self.resources.items()
            if resource["Type"] == "AWS::CloudWatch::Alarm"
        }

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Every metric of an alarm or a widget: namespace, name, dimensions."""
        metrics = []
        for alarm in self.alarms.values():
            stats = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
            for metric in stats or [alarm]:
                metrics.append({
                    "namespace": metric["Namespace"],
                    "name": metric["MetricName"],
                    "dimensions": {d["Name"]: d["Value"] for d in metric["Dimensions"]},
                })
        return metrics + self.shown

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Every metric of a widget."""
        metrics = []
        for widget in self.dashboard["widgets"]:
            for line in widget["properties"].get("metrics", []):
                if expressions := [word["expression"] for word in line if isinstance(word, dict) and "expression" in word]:
                    metrics += map(searched, expressions)
                    continue
                namespace, name, *rest = [word for word in line if isinstance(word, str)]
                dimensions = dict(zip(rest[::2], rest[1::2], strict=True))
                metrics.append({"namespace": namespace, "name": name, "dimensions": dimensions})
        return metrics

    @property
    def queries(self) -> list[str]:
        """Every query: those that are saved, and those of widgets."""
        saved = [
            resource["Properties"]["QueryString"]
            for resource in self.resources.values()
            if resource["Type"] == "AWS::Logs::QueryDefinition"
        ]
        widgets = [widget["properties"] for widget in self.dashboard["widgets"]]
        return saved + [properties["query"] for properties in widgets if "query" in properties]


def searched(expression: str) -> dict[str, Any]:
    """The metrics that a SEARCH finds: any value of the dimensions that it leaves open."""
    found = re.fullmatch(r"SEARCH\('\{([\w,]+)\} MetricName=\"(\w+)\"(.*)', '\w+', \d+\)", expression)
    assert found, expression
    namespace, *dimensions = found[1].split(",")
    given = dict(re.findall(r'(\w+)="([^"]+)"', found[3]))
    assert given.keys() <= set(dimensions)
    return {"namespace": namespace, "name": found[2], "dimensions": {name: given.get(name, "*") for name in dimensions}}


def names_of(enum: str, source: str) -> list[str]:
    """The variants of an enum of the code."""
    [body] = re.findall(rf"pub enum {enum} {{(.*?)\n}}", (ROOT / source).read_text(), re.DOTALL)
    return re.findall(r"^    (\w+)(?:,|\(| \{)", body, re.MULTILINE)


def read() -> Stack:
    """The template of this checkout."""
    return Stack(cfnlint.decode.cfn_yaml.load(str(ROOT / "template.yaml"))["Resources"])
