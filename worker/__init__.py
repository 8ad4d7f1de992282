"""What runs untrusted code: confinement and the WebAssembly engine. Never imports `supervisor`."""
