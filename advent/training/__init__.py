"""The trainer: iterations, optimizers, logging, snapshots, resuming."""
