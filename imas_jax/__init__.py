"""IMAS in JAX/Flax: unsupervised video object segmentation."""
