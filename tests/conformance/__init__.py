"""Runs the shared conformance cases, behaviour written as data, against the engine: ``python -m tests.conformance PATH --json OUT``."""
