"""All that lasts: logs, query metadata, state."""
