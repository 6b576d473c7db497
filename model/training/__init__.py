"""Training: losses, memory, optimisation, curriculum."""
