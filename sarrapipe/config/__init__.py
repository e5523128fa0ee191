"""What a flow is told to do: one declared option is file key, flag, validation, help and documentation."""
