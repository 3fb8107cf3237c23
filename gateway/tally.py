"""A counter and a histogram for the request path.

One thread writes to them, any may read. They take no lock: a value costs the writer a fraction of
what prometheus_client's own take, and a capture pays for several.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counts(Collector):
    """A Prometheus counter with one label.

    Args:
        name: of the metric, without `_total`.
        documentation: what it says.
        label: its name.
        values: of the label: those that are exported before they are first counted, so that an
            alert sees the first one come.
        registry: where it is exported.

    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str,
        values: Iterable[str | int],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._counts = dict.fromkeys(values, 0)
        registry.register(self)

    def add(self, value: str | int) -> None:
        self._counts[value] = self._counts.get(value, 0) + 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self._counts.copy().items():
            family.add_metric([str(value)], count)
        yield family


class Histogram(Collector):
    """A Prometheus histogram without labels.

    Args:
        name: of the metric.
        documentation: what it says.
        bounds: the buckets' upper bounds, each included in its bucket, in ascending order.
        registry: where it is exported.

    """

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._labels = [*map(floatToGoString, bounds), "+Inf"]
        self._counts = [0] * len(self._labels)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(
            self._name,
            self._documentation,
            buckets=list(zip(self._labels, accumulate(self._counts.copy()), strict=True)),
            sum_value=self._sum,
        )
