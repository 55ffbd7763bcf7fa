"""One harness for each value of a case's ``runner``."""
