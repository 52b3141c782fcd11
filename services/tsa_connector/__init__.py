"""Obtains time-stamp tokens from a TSA and lets none through that it has not verified."""
