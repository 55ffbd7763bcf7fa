"""Tools for testing streams: shipped to users."""
