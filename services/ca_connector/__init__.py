"""Orders, polls and revokes certificates at certification authorities, and is one itself where none is near."""
