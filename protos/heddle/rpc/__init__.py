"""The half of the contract that is behaviour: how services talk, fail, start and stop. Knows no model and no text."""
