"""What people look at: the page, curves, drawings and movies."""
