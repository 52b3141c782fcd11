"""What two rooms or more need: contracts, messaging, errors. Knows no service."""
