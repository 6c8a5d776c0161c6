"""Sweeps: Ray Tune chooses values for fields of a training's configuration, and each trial is a training step."""
