"""All of a hit, from a body to its answer, in one call; fastserve/api/hits_py.py is the readable twin.

The pieces (shapes, cache, renderers) are modules of their own; what is native here is what lies between them.
"""

cimport cython
from libc.stdint cimport int64_t

from fastserve.api import wire
from fastserve.api.hits_py import CHEAP_US, FIRST_GUESS_US, GAIN, LOOK_US, SLICE_US, Missed
from fastserve.timeutil import now_us

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec* now)

cdef double _CHEAP_US = CHEAP_US, _SLICE_US = SLICE_US, _FIRST_GUESS_US = FIRST_GUESS_US, _GAIN = GAIN
cdef double _LOOK_US = LOOK_US
cdef bytes ACCEPT = b"accept"
cdef bytes DEADLINE = wire.DEADLINE


cdef inline int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec


@cython.final
cdef class Kind:
    """See the twin."""

    cdef public double work_us
    cdef public double late_us

    def __init__(self, double work_us=_FIRST_GUESS_US, double late_us=0.0):
        self.work_us = work_us
        self.late_us = late_us


@cython.final
cdef class Load:
    """See the twin."""

    cdef public object schedule, judge
    cdef public bint open
    cdef public bint queued
    cdef public double busy_us
    cdef public double slice_us
    cdef public double look_us
    cdef public bint strict
    cdef public bint scheduled

    def __init__(self, schedule, judge=object):
        self.schedule, self.judge = schedule, judge
        self.open = True
        self.slice_us, self.look_us = _SLICE_US, _LOOK_US


@cython.final
cdef class Lane:
    """See the twin."""

    cdef readonly object answer
    cdef readonly list kinds
    cdef readonly str form

    def __init__(self, answer, kinds, str form=""):
        self.answer = answer
        self.kinds = kinds
        self.form = form


cdef inline Kind kind_of(Lane lane, Py_ssize_t keys):
    cdef int bits = 0
    while keys:
        keys >>= 1
        bits += 1
    return lane.kinds[bits]


@cython.final
cdef class HitPath:
    """See the twin."""

    cdef object bodies, catalog, read_path, rows, trust, now
    cdef Load load
    cdef bint wall_clock
    cdef readonly set deadlines

    def __init__(self, bodies, catalog, read_path, rows, trust, Load load, now):
        self.bodies, self.catalog, self.read_path = bodies, catalog, read_path
        self.rows, self.trust, self.load, self.now = rows, trust, load, now
        self.wall_clock = now is now_us
        self.deadlines = set()

    def answer(self, request):
        """The answer, if this is a hit; None for a body that is not known."""
        cdef object bodies = self.bodies, snapshot = (<tuple> self.catalog.current)[0]
        cdef Load load = self.load
        cdef Lane lane
        cdef Kind kind
        cdef int64_t begun, moment
        if snapshot is not bodies.snapshot:
            bodies.renew(snapshot)
        found = bodies.table.match(request.body)
        if found is None:
            return None
        known, batch, n = <tuple> found
        lane = self.lane(known.lanes, request)
        if lane is None or not load.open or self.read_path.blocked:
            return Missed(known, batch, n, False)
        kind = kind_of(lane, len(batch))
        if kind.work_us > _CHEAP_US and (load.queued or load.busy_us >= load.slice_us):
            return Missed(known, batch, n, False, lane)
        begun = clock_ns(CLOCK_MONOTONIC)
        moment = begun // 1_000
        if self.trust.since > moment:
            return Missed(known, batch, n, False)
        answer = self.made(known, batch, n, lane, moment)
        if answer is None:
            return Missed(known, batch, n, True)
        self.worked(kind, (clock_ns(CLOCK_MONOTONIC) - begun) / 1e3)
        return answer

    def in_turn(self, missed):
        """The answer of one that was to wait, now; None where the general way has to read again."""
        known, batch, n, _, lane = <tuple> missed
        moment = clock_ns(CLOCK_MONOTONIC) // 1_000
        if self.read_path.blocked or self.trust.since > moment:
            return None
        return self.made(known, batch, n, lane, moment)

    cdef object made(self, object known, object batch, Py_ssize_t n, Lane lane, int64_t moment):
        """The answer; None where the cache does not know all of it."""
        cdef int64_t now
        if self.rows(batch, n, known.ages_us, moment, self.trust.since) != 0:
            return None
        now = clock_ns(CLOCK_REALTIME) // 1_000 if self.wall_clock else self.now()
        return lane.answer(batch, n, now)

    cdef Lane lane(self, dict lanes, object request):
        accept = None
        for pair in <list> request.headers:
            name, value = <tuple> pair
            if name == ACCEPT and accept is None:
                accept = value
            elif name == DEADLINE and value not in self.deadlines:
                return None
        return lanes.get(accept)

    cdef int worked(self, Kind kind, double took_us) except -1:
        cdef Load load = self.load
        kind.work_us += _GAIN * (min(took_us, 4 * kind.work_us + _FIRST_GUESS_US) - kind.work_us)
        load.busy_us += took_us
        if load.busy_us >= load.look_us and not load.scheduled:
            load.schedule()
        if load.strict and load.busy_us >= load.slice_us:
            load.judge()
        return 0
