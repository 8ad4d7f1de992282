"""Many components in one supervisor: their lives, their broker, their providers, what they print."""
