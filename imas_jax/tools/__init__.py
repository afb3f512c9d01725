"""Beside the protocol: rank masks, score masks, ablations, a network for each clip."""
