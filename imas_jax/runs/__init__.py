"""What a run is: the order of stages, what makes them stale, what they write down."""
