"""What every stage shares: loop, optimizers, checkpoints, metrics, run folders, devices."""
