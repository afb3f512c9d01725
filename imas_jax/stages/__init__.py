"""The steps of the protocol: each reads a config, touches the disk, returns facts."""
