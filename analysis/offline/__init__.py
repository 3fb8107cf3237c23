"""Analyzers that need no model and no network: see docs/analysis-offline.md."""

from analysis.offline.analyzer import OfflineAnalyzer, judge

__all__ = ["OfflineAnalyzer", "judge"]
