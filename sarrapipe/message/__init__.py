"""The notification message: its fields, dialects, topic, identity and safety; pure, no input or output."""
