"""Public weights and annotation files: a catalogue of where they are, and downloads that survive bad networks."""
