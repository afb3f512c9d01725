"""Rendered clips to train the motion evidence on: moving shapes and their masks.

They are not the demo's (`demo/`): shapes are drawn by chance where the demo cuts out
photographs by hand, each clip is new where the demo has five, seven frames long, with
cameras, depth, occluders, water and compression the demo has not; and the photographs
the demo's objects are cut from are left out.
"""
