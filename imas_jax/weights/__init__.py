"""What has a name, as a command: `python -m imas_jax.weights`."""
