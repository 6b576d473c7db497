"""Stepping a loaded model through time: keys, states, perturbations, memory."""
