"""The rooms of the suite. They never import each other."""
