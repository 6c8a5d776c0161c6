"""The fair comparison: arms of equal budget, several seeds, paired tests, tag noise, one report, and a champion."""
