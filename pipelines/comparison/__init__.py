"""Comparison of training configurations ("arms"): equal budget, several seeds, paired tests, a report, a champion."""
