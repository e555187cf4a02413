"""cluster/monitoring: queries that Prometheus can parse, of metrics that genlab and Ray export."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import ray.dashboard.modules.metrics.dashboards as dashboards_of_ray
import yaml
from prometheus_client.parser import text_string_to_metric_families
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from genlab.serving import telemetry
from genlab.serving.haproxy import HAProxyConfig
from genlab.training.ray import telemetry as run_telemetry

MONITORING = Path(__file__).resolve().parents[2] / "cluster" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]


def parsed(query: str) -> Any:
    """The query as Prometheus reads it, with a value for each variable of Grafana's."""
    for variable, value in (("$__rate_interval", "5m"), ("$model", ".*"), ("$run", ".*")):
        query = query.replace(variable, value)
    return promql_parser.parse(query)


def selectors(expression: Any) -> Iterator[Any]:
    """The selectors of series in a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for part in ("expr", "lhs", "rhs", "vs", "vector_selector"):
        inner = getattr(expression, part, None)
        if inner is not None:
            yield from selectors(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from selectors(argument)


def metrics(query: str) -> set[str]:
    """The names of the metrics that a query selects."""
    found = set()
    for selector in selectors(parsed(query)):
        names = [each.value for each in selector.matchers.matchers if each.name == "__name__"]
        found |= {selector.name} if selector.name else set(names[0].split("|"))
    assert found, query
    return found


def of_genlab() -> set[str]:
    """What a server of one process says after a request, and the same with Ray's prefix."""
    own = telemetry.PrometheusTelemetry()
    own.answered("digits", "sample", 200, 0.1)
    own.batch("digits", "sample", 2, 1568)
    own.phase("digits", "compute", 0.1)
    own.waiting("digits", 1)
    own.memory("digits", 1)
    own.row("digits", "sample", 1)
    text, _ = own.text()
    names = {sample.name for family in text_string_to_metric_families(text.decode()) for sample in family.samples}
    ours = {name for name in names if name.startswith("genlab_")}
    assert len(ours) > len(names) / 2
    return ours | {f"ray_{name}" for name in ours}


def of_runs() -> set[str]:
    """What runs tell that Ray trains."""
    return {f"ray_{name}" for name in (run_telemetry.SPEED, run_telemetry.PROGRESS, run_telemetry.METRIC)}


def of_ray() -> set[str]:
    """What Ray's nodes say of themselves, and what the dashboards that come with Ray show."""
    (folder,) = dashboards_of_ray.__path__
    sources = "".join(file.read_text() for file in Path(folder).glob("*_panels.py"))
    return {f"ray_{name}" for name in METRICS_GAUGES} | set(re.findall(r"\b(?:ray|autoscaler)_\w+", sources))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_one_of_metrics_that_are_exported(query: str) -> None:
    assert metrics(query) <= of_genlab() | of_runs() | of_ray()


def test_what_is_not_exported_is_found() -> None:
    assert metrics('rate({__name__=~"genlab_request_total|ray_node_cpu"}[5m])') == {
        "genlab_request_total",
        "ray_node_cpu",
    }
    assert not metrics("sum(rate(genlab_request_total[5m]))") & (of_genlab() | of_ray())
    with pytest.raises(ValueError, match=r"unexpected end of input|unclosed"):
        parsed("sum(rate(genlab_requests_total[5m])")


def test_all_that_the_server_exports_is_on_the_dashboard_but_sizes_of_rows() -> None:
    shown = set().union(*map(metrics, QUERIES))
    endings = ("_created", "_sum", "_count", "_bucket", "_total")

    def plain(names: set[str]) -> set[str]:
        return {re.sub(f"({'|'.join(endings)})$", "", name) for name in names}

    assert plain(of_genlab()) - plain(shown) == {"genlab_row_bytes", "ray_genlab_row_bytes"}


def test_all_that_runs_tell_is_on_the_dashboard() -> None:
    assert of_runs() <= set().union(*map(metrics, QUERIES))


def test_the_dashboard_is_one_that_grafana_shows() -> None:
    assert DASHBOARD["uid"] == "genlab"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not squares & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= squares
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_rules_say_what_is_wrong_and_how_long() -> None:
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        aggregated = re.search(r"by \(([^)]*)\)", rule["expr"])
        assert not aggregated or labels <= set(aggregated[1].split(", "))


def test_what_is_scraped_is_where_genlab_and_ray_say_it() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert set(config) == {"global", "rule_files", "scrape_configs"}
    assert all((MONITORING / file).is_file() for file in config["rule_files"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"ray", "kuberay", "genlab-serve", "haproxy"}
    assert jobs["haproxy"]["static_configs"][0]["targets"] == [f"127.0.0.1:{HAProxyConfig().metrics_port}"]
