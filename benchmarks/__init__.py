"""This trainer beside its peers, on one machine in one run: docs/performance.md says how it is measured."""
