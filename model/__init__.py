"""Pure computation on numpy, xarray, JAX and Haiku: no Prefect, no network, no environment, no clock."""
