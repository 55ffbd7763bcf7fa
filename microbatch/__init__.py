"""Streaming DataFrames in one Python process.

The one rule: a micro-batch is a pure function of what the offset log says about it.
"""
