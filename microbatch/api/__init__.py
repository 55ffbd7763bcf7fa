"""What users touch: StreamFrame, scan_*, Query, StreamingQuery."""
