"""What the processes agree upon, and what stands between them: messages, policy, audit events, the warden."""
