"""Addresses and routes of pods on this node: CNI configuration, host settings, ways to other nodes."""
