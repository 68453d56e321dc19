"""The commands `heddle serve`, `heddle models` and `heddle plan`, and those of the single services."""
