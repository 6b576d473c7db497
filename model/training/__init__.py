"""Training of both families: losses, curriculum, optimiser, the update, evaluation."""
