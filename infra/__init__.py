"""Every side effect on bytes and machines: settings, layout, stores, sources, devices."""
