"""The life of a query: trigger, batch, recovery, progress."""
