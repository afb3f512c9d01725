"""Checks types and shapes of every call into the package while tests run.

pytest finds `check` by `--jaxtyping-packages` (pyproject.toml). A whole number is a
float here, as type checkers have it (PEP 484); beartype alone says otherwise.
"""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
