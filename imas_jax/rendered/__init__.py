"""Rendered clips to train the motion evidence on: moving shapes and their masks."""
