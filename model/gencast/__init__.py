"""GenCast: a diffusion model of the weather 12 hours ahead (Price et al. 2023, arXiv:2312.15796)."""
