"""The same predictions through other scorers and through this project: inputs, recorded values, and how to run them."""
