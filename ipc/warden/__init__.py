"""The warden: answers the workers' file-related system calls from outside, by seccomp user notification."""
