"""What two rooms or more need: contracts, messaging, errors. Knows no service."""

VERSION = "0.1.0"
