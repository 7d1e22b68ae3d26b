"""What on-demand functions often need. Every result is the same bits on every machine.

numpy's sine and arcsine differ in the last bit from one processor to another, which training and serving would show.
So those used here are polynomials of the basic operations alone, which IEEE 754 rounds alike everywhere: the kernels of
FreeBSD's msun (k_sin.c, k_cos.c, e_asin.c), whose errors are below one unit in the last place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]

EARTH_KM: Final = 6371.0088
"""The mean radius of the earth (IUGG)."""
_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US
_SIN: Final = (
    -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
    2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10,
)  # fmt: skip
_COS: Final = (
    4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
    -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
)  # fmt: skip
_ASIN_P: Final = (
    1.66666666666666657415e-01, -3.25565818622400915405e-01, 2.01212532134862925881e-01,
    -4.00555345006794114027e-02, 7.91534994289814532176e-04, 3.47933107596021167570e-05,
)  # fmt: skip
_ASIN_Q: Final = (
    1.0, -2.40339491173441421878e00, 2.02094576023350569471e00, -6.88283971605453293030e-01,
    7.70381505559019352791e-02,
)  # fmt: skip


Helper = Callable[..., Any]


def _nulls_go_through(helper: Helper) -> Helper:
    """Of masked arrays, as functions with `valid` get them, the result is masked where one of them is."""

    @functools.wraps(helper)
    def called(*given: Any) -> Any:
        masks = [np.ma.getmaskarray(each) for each in given if isinstance(each, np.ma.MaskedArray)]
        if not masks:
            return helper(*given)
        made = helper(*(each.data if isinstance(each, np.ma.MaskedArray) else each for each in given))
        return np.ma.MaskedArray(np.ma.getdata(made), mask=np.ma.getmask(made) | np.logical_or.reduce(masks))

    return called


@_nulls_go_through
def hours_since(then: Times, at: Times) -> Floats:
    """Hours from `then` to `at`, float64[n]; negative where `then` is later.

    Args:
        then, at: datetime64[us], as a function gets them.
    """
    return _us(at - then) / _HOUR_US


@_nulls_go_through
def hour_of_day(at: Times) -> npt.NDArray[np.int64]:
    """The hour of the day in UTC, int64[n], 0 to 23."""
    return _us(at) // _HOUR_US % 24


@_nulls_go_through
def day_of_week(at: Times) -> npt.NDArray[np.int64]:
    """The day of the week in UTC, int64[n]: Monday is 0, as of datetime."""
    return (_us(at) // _DAY_US + 3) % 7


@_nulls_go_through
def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
    """``part / whole`` as float64[n], null where `whole` is 0."""
    nothing = np.equal(whole, 0)
    divisor = np.where(nothing, 1, whole).astype(np.float64)
    return np.ma.MaskedArray(np.asarray(part, np.float64) / divisor, mask=nothing)


@_nulls_go_through
def haversine_km(
    lat_1: npt.ArrayLike, lon_1: npt.ArrayLike, lat_2: npt.ArrayLike, lon_2: npt.ArrayLike
) -> Floats:
    """The distance of two points on a sphere of the earth's mean radius, kilometres, float64[n].

    Args:
        lat_1, lon_1, lat_2, lon_2: degrees: latitudes from -90 to 90, longitudes from -360 to 360. Of others, and of
            NaN, the distance is NaN.
    """
    lat_1, lon_1, lat_2, lon_2 = (np.asarray(each, np.float64) for each in (lat_1, lon_1, lat_2, lon_2))
    with np.errstate(invalid="ignore"):
        across, along = _half_sine(lat_2 - lat_1), _half_sine(lon_2 - lon_1)
        square = across * across + _cosine(lat_1) * _cosine(lat_2) * (along * along)
        far: Floats = 2.0 * EARTH_KM * _arcsine(np.sqrt(np.minimum(square, 1.0)))
    placed = (np.abs(lat_1) <= 90) & (np.abs(lat_2) <= 90) & (np.abs(lon_1) <= 360) & (np.abs(lon_2) <= 360)
    return np.where(placed, far, np.nan)


def _us(times: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Microseconds of times or of differences."""
    unit = "datetime64[us]" if times.dtype.kind == "M" else "timedelta64[us]"
    return times.astype(unit).view(np.int64)


# ---- trigonometry of degrees ----------------------------------------------------------------------


def _reduced(degrees: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(radians of -pi/4 … pi/4, quarter turns): the degrees left after whole quarter turns are exact."""
    turns = np.rint(degrees / 90.0)
    radians = (degrees - 90.0 * turns) * (np.pi / 180.0)
    return radians, np.where(np.abs(turns) <= 4, turns, 0.0).astype(np.int64) & 3


def _sine(degrees: Floats) -> Floats:
    radians, turns = _reduced(degrees)
    chosen = np.where(turns & 1, _small_cosine(radians), _small_sine(radians))
    return np.where(turns & 2, -chosen, chosen)


def _half_sine(degrees: Floats) -> Floats:
    return _sine(degrees * 0.5)


def _cosine(degrees: Floats) -> Floats:
    radians, turns = _reduced(degrees)
    chosen = np.where(turns & 1, _small_sine(radians), _small_cosine(radians))
    return np.where((turns + 1) & 2, -chosen, chosen)


def _small_sine(x: Floats) -> Floats:
    """Of -pi/4 … pi/4."""
    z = x * x
    return x + x * z * _polynomial(_SIN, z)


def _small_cosine(x: Floats) -> Floats:
    """Of -pi/4 … pi/4."""
    z = x * x
    half = 0.5 * z
    w = 1.0 - half
    return w + (((1.0 - w) - half) + z * z * _polynomial(_COS, z))


def _arcsine(x: Floats) -> Floats:
    """Of 0 … 1."""
    near = x < 0.5
    t = np.where(near, x * x, (1.0 - x) * 0.5)
    r = t * _polynomial(_ASIN_P, t) / _polynomial(_ASIN_Q, t)
    s = np.sqrt(t)
    return np.where(near, x + x * r, np.pi / 2 - 2.0 * (s + s * r))


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """The first coefficient and x times the next, and so on, by Horner's rule."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + x * total
    return total
