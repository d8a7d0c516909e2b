"""Custom data: read the user's files in place and tolerate invalid content."""
