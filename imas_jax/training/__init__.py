"""State, steps, devices, loop and checkpoints."""
