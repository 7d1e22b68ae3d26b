"""What a read says about a value. The numbers are Feast's FieldStatus, and 5 is ours."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """One code per (field, entity).

    A failure (UNAVAILABLE) is never dressed as absence (NOT_FOUND), nor absence as a null.
    """

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    OUTSIDE_MAX_AGE = 4
    UNAVAILABLE = 5


PRESENT = Status.PRESENT
NULL_VALUE = Status.NULL_VALUE
NOT_FOUND = Status.NOT_FOUND
OUTSIDE_MAX_AGE = Status.OUTSIDE_MAX_AGE
UNAVAILABLE = Status.UNAVAILABLE
