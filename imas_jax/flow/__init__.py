"""Optical flow: files, estimators and what is read off a flow field."""
