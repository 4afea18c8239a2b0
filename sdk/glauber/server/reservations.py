"""Who has a device to himself, and when; kept in lab.sqlite."""

from __future__ import annotations

from dataclasses import dataclass

from glauber.errors import InvalidModelError
from glauber.server import audit
from glauber.server.labfile import LabFile

LATEST = 32503680000.0  # 3000-01-01 UTC
LONGEST = 31 * 86400.0
"""Of one reservation, in seconds."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """One device for one owner.

    Attributes:
        id: number.
        device: name of the device.
        owner: whose jobs alone start meanwhile.
        starts: Unix seconds.
        ends: Unix seconds.
        made_by: who made it.
    """

    id: int
    device: str
    owner: str
    starts: float
    ends: float
    made_by: str


def reserve(file: LabFile, device: str, owner: str, starts: float, ends: float, *, who: str) -> Reservation:
    """Make a reservation.

    Raises:
        InvalidModelError: it is over before it begins, lies in the past, is too long, or overlaps with another.
    """
    now = file.record_time()
    if ends > LATEST:
        raise InvalidModelError("the reservation ends after the year 3000")
    if not starts < ends <= starts + LONGEST:
        raise InvalidModelError(f"a reservation ends after it starts, and at most {LONGEST / 86400:g} days later")
    if ends <= now:
        raise InvalidModelError("the reservation is over already; give times in UTC, or with their offset")
    with file.transaction() as connection:
        other = connection.execute(
            "SELECT * FROM reservations WHERE device = ? AND starts < ? AND ends > ? ORDER BY starts LIMIT 1",
            (device, ends, starts),
        ).fetchone()
        if other is not None:
            raise InvalidModelError(
                f"{device} is reserved for {other[2]} meanwhile (reservation {other[0]}); choose other times, or have"
                " that one deleted"
            )
        cursor = connection.execute(
            "INSERT INTO reservations (device, owner, starts, ends, made_by) VALUES (?, ?, ?, ?, ?)",
            (device, owner, starts, ends, who),
        )
        made = Reservation(int(cursor.lastrowid or 0), device, owner, starts, ends, who)
        times = {"starts": starts, "ends": ends}
        audit.append_within(connection, now, who, "reserve", str(made.id), device=device, owner=owner, **times)
    return made


def reservation(file: LabFile, number: int) -> Reservation | None:
    """One by its number, None if there is none."""
    rows = file.rows("SELECT * FROM reservations WHERE id = ?", number)
    return Reservation(*rows[0]) if rows else None


def unreserve(file: LabFile, number: int, *, who: str) -> None:
    """Delete a reservation; one that has begun ends now."""
    now = file.record_time()
    with file.transaction() as connection:
        gone = connection.execute("DELETE FROM reservations WHERE id = ?", (number,)).rowcount
        if gone:
            audit.append_within(connection, now, who, "unreserve", str(number))


def reservations(file: LabFile, device: str) -> list[Reservation]:
    """Those of a device that are not over, in order of time."""
    rows = file.rows("SELECT * FROM reservations WHERE device = ? AND ends > ? ORDER BY starts", device, file.now())
    return [Reservation(*row) for row in rows]
