"""How each family of models is loaded: its settings, its names of weights, and its heads. `registry.py` lists them."""
