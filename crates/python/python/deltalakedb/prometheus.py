"""The numbers of a catalog for ``prometheus_client``.

::

    from prometheus_client import REGISTRY, start_http_server
    from deltalakedb.prometheus import CatalogCollector

    REGISTRY.register(CatalogCollector(catalog))
    start_http_server(9000)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional

from . import _internal
from .exceptions import DeltaLakeDbError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ._catalog import Catalog

__all__ = ["CatalogCollector"]


class CatalogCollector:
    """A collector of ``prometheus_client``. Names and labels are those of ``dl mirror run --listen``.

    Times come as summaries, with their count and their sum. A catalog that is closed has no numbers:
    ``dl_scrape_errors_total`` counts that.
    """

    def __init__(self, catalog: Catalog, labels: Optional[Mapping[str, str]] = None) -> None:
        """Collects from a catalog; ``labels`` are added to each number, as ``{"catalog": "orders"}``."""
        self._catalog = catalog
        self._labels = dict(labels or {})
        self._errors = 0
        told = json.loads(_internal.metric_names())
        self._known: dict[str, tuple[str, str]] = {m["name"]: (m["kind"], m["help"]) for m in told}

    def describe(self) -> list[Metric]:
        """Nothing: which numbers there are is known when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The numbers at this moment. The database is not asked."""
        from prometheus_client.core import CounterMetricFamily

        try:
            numbers = self._catalog.metrics()
        except DeltaLakeDbError:
            self._errors += 1
            numbers = None
        if numbers is not None:
            yield from self._families(numbers)
        errors = CounterMetricFamily(
            "dl_scrape_errors_total", "Collections that failed.", labels=list(self._labels)
        )
        errors.add_metric(list(self._labels.values()), self._errors)
        yield errors

    def _families(self, numbers: Mapping[str, Any]) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            SummaryMetricFamily,
        )

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": SummaryMetricFamily}
        series: dict[str, list[tuple[dict[str, str], float, Optional[float]]]] = {}
        for measured in numbers["measured"]:
            series.setdefault(measured["name"], []).append(
                (measured["labels"], measured["count"], measured.get("seconds"))
            )
        for name, labels, value, seconds in _state(numbers):
            series.setdefault(name, []).append((labels, value, seconds))
        for name, values in sorted(series.items()):
            kind, text = self._known.get(name, ("gauge", name))
            names = sorted({label for labels, _, _ in values for label in labels})
            family: Any = kinds[kind](name, text, labels=[*self._labels, *names])
            for labels, count, seconds in values:
                with_labels = [*self._labels.values(), *(labels.get(label, "") for label in names)]
                if kind == "histogram":
                    family.add_metric(with_labels, count_value=count, sum_value=seconds or 0.0)
                else:
                    family.add_metric(with_labels, count)
            yield family


def _state(numbers: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], float, Optional[float]]]:
    """The pool and the cache as series."""
    pool, cache = numbers["pool"], numbers["cache"]
    if pool is not None:
        for state in ("active", "idle"):
            yield "dl_pool_connections", {"state": state}, pool[state], None
        yield "dl_pool_limit", {}, pool["limit"], None
        yield "dl_pool_waits_total", {}, pool["waits_total"], None
    for kind, of in cache["kinds"].items():
        yield "dl_cache_hits_total", {"kind": kind}, of["hits"], None
        yield "dl_cache_misses_total", {"kind": kind}, of["misses"], None
    yield "dl_cache_weight_bytes", {}, cache["weight_bytes"], None
    yield "dl_cache_capacity_bytes", {}, cache["capacity_bytes"], None
    ratio = numbers["cache_hit_ratio"]
    yield "dl_cache_hit_ratio", {}, 1.0 if ratio is None else ratio, None
