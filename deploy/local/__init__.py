"""The private stack that `./rakkan` starts on one machine, for development and tests. Not for production."""
