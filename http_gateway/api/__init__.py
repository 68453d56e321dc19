"""The routes, by what they answer. Each file has a function `routes` that the app is made with."""
