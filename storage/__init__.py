"""Where it lies: file systems, Arrow files, stage outputs, manifests, leases and run records."""
