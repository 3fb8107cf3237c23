"""Analyzers that need no model and no network: see docs/analysis-offline.md."""

from analysis.offline.analyzer import OfflineAnalyzer

__all__ = ["OfflineAnalyzer"]
