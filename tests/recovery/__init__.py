"""What a crash leaves, and what a restart makes of it."""
