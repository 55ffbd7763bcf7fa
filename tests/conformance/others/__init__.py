"""Cases of behaviour Spark lacks or does otherwise: another schema, so another translation; the engine below is the same."""
