"""Second floor: the target domain against itself. Pseudo labels, ranking, and adaptation between the halves."""
