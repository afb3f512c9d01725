"""Experiment configurations; each file is one page of the lab notebook."""
