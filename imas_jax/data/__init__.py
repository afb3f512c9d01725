"""Clips on disk and in memory, batches, augmentation, and the annotation wall."""
