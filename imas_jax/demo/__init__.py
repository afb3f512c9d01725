"""Clips rendered from bundled photographs, with exact masks (configs/demo.py)."""
