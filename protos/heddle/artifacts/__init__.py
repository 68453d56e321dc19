"""Artifacts: checkpoint folders that `heddle build` makes, their manifests, and the store that keeps them."""
