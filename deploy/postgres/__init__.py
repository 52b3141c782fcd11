"""Roles and migrations of the database."""
