"""Requests to an ASGI application without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client of the application, to be used on one event loop. Errors of the app are raised."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def request(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    """One request, on an event loop of its own."""

    async def ask() -> httpx.Response:
        async with client_of(app) as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())
