"""The icosahedral multi-mesh, the graphs between it and the grid, and message passing on them."""
