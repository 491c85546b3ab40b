"""Synthetic abdominal CT, for the demo and the tests."""
