"""The audit log: who asked for what, when, and what came of it, as much of it as a policy says."""
