"""One HTML file, overlays and curves of a run (filled by `imas_jax/report.py`)."""

from imas_jax.stages.run import Output, Run


def work(run: Run) -> Output:
    """Write the report."""
    return Output("x", {})
