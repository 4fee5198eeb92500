"""toyicl."""
