"""Runtime: process groups, devices and seeds, signals, folder locks, progress bars."""
