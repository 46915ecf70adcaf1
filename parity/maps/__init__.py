"""What the state dictionaries of each model must contain: one module per model family."""
