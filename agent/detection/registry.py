"""Anomaly types: a new one is a file here and a line in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.configuration.schema import AnomalyType
from agent.detection.anomaly_handler import AnomalyHandler
from agent.detection.error_handler import ErrorAnomalyHandler
from agent.detection.latency_handler import LatencyAnomalyHandler

ANOMALY_HANDLER_REGISTRY: Mapping[AnomalyType, type[AnomalyHandler]] = MappingProxyType(
    {
        AnomalyType.LATENCY: LatencyAnomalyHandler,
        AnomalyType.ERROR: ErrorAnomalyHandler,
    }
)

__all__ = ["ANOMALY_HANDLER_REGISTRY", "AnomalyHandler"]
