"""The host's own side: airssys.toml as values, where things are, and what the host makes of a manifest."""
