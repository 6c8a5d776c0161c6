"""The metrics: one file each, with functions over lists and a `Metric`; `catalog` lists them. No Ray, no torch."""
