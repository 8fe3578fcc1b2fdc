"""Encryption at rest: what the datastore gets of chosen kinds is sealed with keys that it does not have."""
