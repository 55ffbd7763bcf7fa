"""Numbers, side by side with hand-written Polars in the same run."""
