"""Approvals: who asked for what, who said yes to it, and what has become of that."""
