"""Acceptance of devices with stated error rates: `accept(device)`; see docs/acceptance.md."""

from glauber.testing.acceptance.accept import accept
from glauber.testing.acceptance.report import AcceptanceReport, Look, Power
from glauber.testing.acceptance.spending import Spending
from glauber.testing.acceptance.statistics import Statistic

__all__ = ["AcceptanceReport", "Look", "Power", "Spending", "Statistic", "accept"]
