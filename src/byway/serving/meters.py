"""What the service counts. With PROMETHEUS_MULTIPROC_DIR set, counts are shared by all workers through files."""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

requests = Counter("byway_requests_total", "Requests.", ["route", "method", "status"])
seconds = Histogram(
    "byway_request_seconds",
    "Time from the request's head to the reply's end.",
    ["route"],
    buckets=(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
answers = Counter(
    "byway_answers_total",
    "Answers by strategy; popular_cluster, unrestricted and popular_items are fallbacks.",
    ["strategy"],
)
items = Counter("byway_items_total", "Items shown, by how they were found.", ["found_by"])
exposures = Counter(
    "byway_exposures_total",
    "Answers: logged, undelivered (the client had gone), or dropped (the history did not take them in time).",
    ["result"],
)
short = Counter("byway_short_answers_total", "Answers with fewer items than were asked for.")
events = Counter("byway_events_total", "Events: stored, known already, or too old.", ["result"])
switches = Counter("byway_bundle_switches_total", "Bundles that a worker took up.")
failed = Counter("byway_bundle_failures_total", "Bundles that a worker could not open.")
dropped = Counter("byway_connections_dropped_total", "Connections that were ended for a bound.", ["reason"])


class Facts:
    """What is not counted but so at the moment: `(name, help, labels, value)` each, of the worker that is asked."""

    def __init__(self, facts: Iterable[tuple[str, str, dict[str, str], float]]):
        self._facts = list(facts)

    def collect(self) -> Iterable[Metric]:
        """A metric for each name: a counter where the name says so, else a gauge."""
        found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, said, labels, value in self._facts:
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            metric = found.setdefault(name, family(name, said, labels=list(labels)))
            metric.add_metric(list(labels.values()), value)
        return found.values()


def registry() -> CollectorRegistry:
    """What there is to collect: of all workers where they share their counts, else of this process."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    found = CollectorRegistry()
    MultiProcessCollector(found)
    return found


def exposition(facts: Iterable[tuple[str, str, dict[str, str], float]] = ()) -> bytes:
    """All counts, and what is so now, in the Prometheus text format."""
    return generate_latest(registry()) + generate_latest(Facts(facts))


def quantile(share: float, route: str) -> float | None:
    """About the time in seconds under which this share of a route's requests lies; None where there was none.

    Linear inside a bucket.
    """
    counts: dict[float, float] = {}
    for metric in registry().collect():
        for sample in metric.samples if metric.name == "byway_request_seconds" else ():
            if sample.name.endswith("_bucket") and sample.labels["route"] == route:
                edge = float(sample.labels["le"])
                counts[edge] = counts.get(edge, 0.0) + sample.value
    edges = sorted(counts)
    if not edges or counts[edges[-1]] == 0:
        return None
    wanted, low, below = share * counts[edges[-1]], 0.0, 0.0
    for edge in edges:
        if counts[edge] >= wanted:
            if edge == float("inf"):
                return low
            return low + (edge - low) * (wanted - below) / max(counts[edge] - below, 1e-12)
        low, below = edge, counts[edge]
    return low


def total(name: str, label: str) -> dict[str, float]:
    """A counter's values by one of its labels."""
    found: dict[str, float] = {}
    for metric in registry().collect():
        for sample in metric.samples:
            if sample.name == name and label in sample.labels:
                found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + sample.value
    return found
