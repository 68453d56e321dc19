"""One file for each family of models: its config, its names of weights, and its heads. `table.py` lists them."""
