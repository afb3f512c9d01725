"""Networks. Modules own parameters; equations live in composition and losses."""
