"""Triton's metrics as its Python backend has them: `MetricFamily`, whose metrics are told apart by their labels."""

import importlib
import sys
import types
from collections import defaultdict


class Registry(types.ModuleType):
    """In the place of `triton_python_backend_utils`. Metrics of one name and the same labels are one, as in the server."""

    def __init__(self):
        super().__init__("triton_python_backend_utils")
        self.metrics = {}
        self._tells = []
        registry = self

        class MetricFamily:
            COUNTER, GAUGE, HISTOGRAM = range(3)

            def __init__(self, name, description, kind):
                self.name = name

            def Metric(self, labels, buckets=None):  # Triton's name
                return registry.metrics.setdefault((self.name, tuple(sorted(labels.items()))), Value())

        self.MetricFamily, self.Metric = MetricFamily, Value

    def told_by(self, metrics):
        """The same `Metrics`, which tell all there is before they are read here."""
        self._tells.append(metrics.tell)
        return metrics

    def of(self, name, **labels):
        """Sum over the metrics of a name that have these labels; of a histogram, of what it observed."""
        return sum(value.value for (_, told), value in self._named(name) if labels.items() <= dict(told).items())

    def by(self, name, *labels):
        """Label's values -> sum, where it is not 0."""
        found = defaultdict(float)
        for (_, told), value in self._named(name):
            found[tuple(dict(told)[label] for label in labels)] += value.value
        return {labels[0] if len(labels) == 1 else labels: value for labels, value in found.items() if value}

    def _named(self, name):
        for tell in self._tells:
            tell()
        return [(key, value) for key, value in self.metrics.items() if key[0] == f"faceclip_{name}"]

    def use(self, monkeypatch, *modules):
        """The modules, imported over this one. They are forgotten with the test, since they hold it."""
        monkeypatch.setitem(sys.modules, self.__name__, self)
        names = [f"faceclip_serving.models.{module}" for module in modules]
        for name in names:
            monkeypatch.delitem(sys.modules, name, raising=False)
        found = [importlib.import_module(name) for name in names]
        for name in names:
            monkeypatch.setitem(sys.modules, name, sys.modules[name])
        return found


class Value:
    def __init__(self):
        self.value = 0.0

    def set(self, value):
        self.value = value

    def increment(self, value):
        self.value += value

    observe = increment
