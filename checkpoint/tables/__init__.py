"""The state store: versioned tables of sorted Arrow runs, one delta a batch."""
