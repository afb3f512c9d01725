"""Clips rendered to train the motion evidence on: shapes that move, with their masks."""
