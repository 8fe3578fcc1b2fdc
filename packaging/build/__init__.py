"""Builds the one executable: locked inputs, a content-addressed store, stages, and a launcher with one payload."""
