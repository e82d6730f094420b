"""Pages of the web: how their characters are encoded, and what on them is the main content."""
