"""Feeds: sources of events outside, and the role that runs them."""
