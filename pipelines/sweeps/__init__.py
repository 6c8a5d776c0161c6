"""Sweeps over a training's configuration: Ray Tune chooses, every trial is a training step of its own."""
