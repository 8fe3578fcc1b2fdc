"""Authorizers other than the default ones: an order that the configuration says, and webhooks."""
