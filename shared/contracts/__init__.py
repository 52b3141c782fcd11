"""What the rooms say to each other: one file for each listener, frozen and strict pydantic models."""
