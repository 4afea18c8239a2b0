"""Bearer tokens: glb_<id>_<secret>.

Only the sha256 of the secret is stored. Slow hashes with salt protect passwords, which people choose and attackers
guess; a secret here is 256 random bits, so whoever steals a hash would have to try 2^255 of them, whatever one costs.

Scopes: read, submit, admin; each includes the ones before it. Every request asks the file anew, so that a token revoked
by `glauber token revoke`, another process, is refused from that moment on.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from typing import Any, Literal, get_args

from glauber.errors import AccessError, InvalidModelError
from glauber.server import audit
from glauber.server.config import OWNER_PATTERN
from glauber.server.labfile import LabFile

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_DAYS = 3660.0
DAY = 86400.0
_FORM = re.compile(r"glb_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the secret is not.

    Attributes:
        id: eight hexadecimal digits; names it in lists and logs.
        owner: whose jobs it submits.
        scope: what it may do.
        created: Unix seconds.
        expires: Unix seconds.
        revoked: Unix seconds, or None.
    """

    id: str
    owner: str
    scope: Scope
    created: float
    expires: float
    revoked: float | None

    def allows(self, scope: Scope) -> bool:
        """Whether its scope includes another."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def who(self) -> str:
        """For the audit log."""
        return f"{self.owner} (token {self.id})"


def create_token(file: LabFile, owner: str, scope: str, days: float) -> tuple[Token, str]:
    """Make a token; its text is in the answer and nowhere else.

    Raises:
        InvalidModelError: owner, scope or days are not possible.
    """
    if re.fullmatch(OWNER_PATTERN, owner) is None:
        raise InvalidModelError(
            f"owner {owner!r} must be 1 to 64 letters, digits or . _ @ -, and begin with a letter or digit"
        )
    if scope not in SCOPES:
        raise InvalidModelError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    if not 0 < days <= MAX_DAYS:
        raise InvalidModelError(f"a token is valid for more than 0 and at most {MAX_DAYS:g} days, not {days!r}")
    secret = secrets.token_urlsafe(32)
    now = file.record_time()
    token = Token(secrets.token_hex(4), owner, scope, now, now + days * DAY, None)
    with file.transaction() as connection:
        connection.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (token.id, _digest(secret), token.owner, token.scope, token.created, token.expires),
        )
        audit.append_within(
            connection, now, local_user(), "token-create", token.id, owner=owner, scope=scope, days=days
        )
    return token, f"glb_{token.id}_{secret}"


def check_token(file: LabFile, text: str) -> Token:
    """The token that a request carries.

    Raises:
        AccessError: it is none of ours, was revoked or has expired.
    """
    form = _FORM.fullmatch(text)
    found = [] if form is None else file.rows("SELECT * FROM tokens WHERE id = ?", form[1])
    stored = found[0][1] if found else _NO_DIGEST
    if not hmac.compare_digest(_digest("" if form is None else form[2]), stored):
        raise AccessError("the token is not one of this lab; ask whoever runs it for one (glauber token create)")
    token = _token(found[0])
    if token.revoked is not None:
        raise AccessError(f"token {token.id} was revoked; ask for a new one")
    if file.now() >= token.expires:
        raise AccessError(f"token {token.id} has expired; ask for a new one")
    return token


def token_is_gone(file: LabFile, token: Token) -> bool:
    """Whether a token that was valid has been revoked or has expired since: asked while an answer goes on and on."""
    rows = file.rows("SELECT revoked FROM tokens WHERE id = ?", token.id)
    return not rows or rows[0][0] is not None or file.now() >= token.expires


def revoke_token(file: LabFile, token_id: str) -> Token:
    """Make a token invalid at once, and for good.

    Raises:
        InvalidModelError: there is none with this id.
    """
    now = file.record_time()
    with file.transaction() as connection:
        row = connection.execute("SELECT * FROM tokens WHERE id = ?", (token_id,)).fetchone()
        if row is None:
            raise InvalidModelError(f"there is no token {token_id!r}; glauber token list shows the ids")
        if row[6] is None:
            connection.execute("UPDATE tokens SET revoked = ? WHERE id = ?", (now, token_id))
            audit.append_within(connection, now, local_user(), "token-revoke", token_id, owner=row[2])
    return _token(file.rows("SELECT * FROM tokens WHERE id = ?", token_id)[0])


def all_tokens(file: LabFile) -> list[Token]:
    """Every token that was ever made, oldest first."""
    return [_token(row) for row in file.rows("SELECT * FROM tokens ORDER BY created, id")]


def local_user() -> str:
    """Who runs a command on this computer, for the audit log."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = f"uid {os.getuid()}"
    return f"{name} (command line)"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _token(row: tuple[Any, ...]) -> Token:
    token_id, _, owner, scope, created, expires, revoked = row
    return Token(token_id, owner, scope, created, expires, revoked)
