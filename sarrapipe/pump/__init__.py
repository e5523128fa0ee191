"""The pump's rules (accounts, permissions) and the private pump that an administrator runs."""
