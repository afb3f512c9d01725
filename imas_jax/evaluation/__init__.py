"""Metrics and protocols; the only readers of annotations besides reports."""
