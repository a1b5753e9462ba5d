"""JSON Web Tokens (RFC 7519) by the standard library alone, sound ones and forged ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any


def b64url(raw: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign(secret: bytes, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """Return a token signed with HS256, whatever its header says."""
    head = b64url(json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode())
    body = f"{head}.{b64url(json.dumps(claims).encode())}"
    return f"{body}.{b64url(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def user_token(secret: bytes, user: str, ttl_s: float = 3600, **claims: Any) -> str:
    """Return a sound token for a user."""
    return sign(secret, {"sub": user, "exp": int(time.time() + ttl_s), **claims})


def unsigned(user: str, alg: str = "none") -> str:
    """Return a token with an algorithm that signs nothing."""
    head = b64url(json.dumps({"alg": alg, "typ": "JWT"}).encode())
    return f"{head}.{b64url(json.dumps({'sub': user, 'exp': int(time.time()) + 3600}).encode())}."
