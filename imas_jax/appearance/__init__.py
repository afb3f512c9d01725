"""What appearance says of masks (paper Sec. 3.3 and 3.4). Knows no run and no disk."""
