"""What the user asked, as immutable nodes: schema, checks, fingerprint, explain."""
