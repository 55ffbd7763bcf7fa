"""Where rows go: one connector a file."""
