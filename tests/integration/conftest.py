"""A service on disk for whichever test wants one."""

from tests.running_service import make_service

__all__ = ["make_service"]
