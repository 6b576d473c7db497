"""The nature run: a free run of a general circulation model that stands in for the atmosphere."""
