"""Packages: what belongs to a component, where it came from, and where the installed ones are."""
