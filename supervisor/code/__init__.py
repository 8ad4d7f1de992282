"""A program's bytes, compiled by a confined process, and the cache of that."""
