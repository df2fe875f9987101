"""Self-training and intra-domain adaptation on the target."""

import daf  # noqa: F401  (the import checks that `advent` is this project's package)
