"""The commands: `heddle serve`, `models` and `plan`, and those of the single services."""
