"""How one node of a plan runs on a batch: one operator a file."""
