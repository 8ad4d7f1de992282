"""Signatures of packages: OpenSSH's keys and OpenSSH's signature format, over a package's statement."""
