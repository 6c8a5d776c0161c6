"""The metrics, one family a file: pure functions over lists, without Ray, torch or a model."""
