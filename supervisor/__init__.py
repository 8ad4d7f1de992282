"""What decides and keeps: manifests, trust, life cycles, the audit log, the command line. Never imports `worker`."""
