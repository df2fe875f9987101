"""Self-training and intra-domain adaptation on the target."""

import daf  # noqa: F401  (checks that `advent` is this project's package before any module of it is imported)
