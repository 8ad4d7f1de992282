"""Who said yes to what: a file, what was remembered, and what would have to be granted."""
