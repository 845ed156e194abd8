"""API triggers over HTTP."""

from app.scheduler.api.router import create_trigger_router

__all__ = ["create_trigger_router"]
