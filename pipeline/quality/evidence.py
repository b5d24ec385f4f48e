"""A room's evidence of invalid traffic: what is noted of an event, and what follows at a visit to the room.

An event costs a note: a record of a visit that is over, a flag of one that goes on. When enough of what was noted is
odd (sources that are shared, texts that are copied, one stay of many), a visit to the room holds an inquest over the
records (`pipeline.quality.inquest`, `.writers`). Who is found invalid is marked: from then on the user's events count
as invalid at once, those before are counted at the time when they happened, orders of before leave the valid return.

Memory is bounded whatever comes: see `pipeline.quality.limits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.quality.anonymous import Anonymous
from pipeline.quality.blame import blame
from pipeline.quality.inquest import FAMILIES, Guilt, inquest
from pipeline.quality.reference import Past, whole
from pipeline.quality.seen import Generations
from pipeline.quality.surprise import surplus
from pipeline.quality.visits import (
    CAME,
    COMMENT,
    COPIED,
    FLAGS_AT,
    MARKED,
    SHARED_BLOCK,
    SHARED_DEVICE,
    VISIT,
    Comment,
    Visit,
    fine_stay,
    read_comments,
    read_visits,
)
from pipeline.quality.writers import writers
from schemas.settings import QualitySettings

SOURCE_MEMORY_MS: Final = 600_000
TEXT_MEMORY_MS: Final = 60_000
MAX_VISITS: Final = 1_024
MAX_COMMENTS: Final = 768
MAX_DOING: Final = 1_024
MAX_MARKS: Final = 8_192
MAX_BUYERS: Final = 512
MAX_SOURCES: Final = 1_024
PURE_USERS: Final = 5
"""Users of a device or block, all of them invalid (19 of 20 visits), before whoever comes next from it is too."""
MAX_PLACES: Final = 32
"""Channels, and segments, told apart; more count under the first, the unknown."""
WINDOW: Final = 64
"""Records of a kind after which those that were odd are counted anew."""
ODD_SHARE: Final = 5
"""One in so many records must be odd before anybody looks."""
WAIT_EMPTY, WAIT_KNOWN = 4, 16
"""After a look over n records that found nobody, and after one that found only the known, n / 4 and n / 16 new ones are
waited for: each record is read four or sixteen times at most."""
MAX_PARTS: Final = 4
"""Moments that a visit's events are spread over."""
_N_SHIFT: Final = 8
_ONE: Final = 1 << _N_SHIFT
_N_MOST: Final = 255
_FLAGS: Final = _ONE - 1


class Credit(NamedTuple):
    """Judged events that turn out invalid: `n` of them at a moment under a channel; `user` 0 where nobody is known."""

    ts: int
    channel: str
    n: int
    user: int = 0


def _over(visit: Visit, channel: str) -> Iterator[Credit]:
    """Yield a visit's events where they were: its end, and what was before spread over the stay, of which the log keeps
    only the number. Counted at the end all of it would move from the window where an attack began to the next one.
    """
    yield Credit(visit.left_ms, channel, 1, visit.user)
    before = visit.n - 1
    parts = min(before, MAX_PARTS)
    for part in range(parts):
        n = before * (part + 1) // parts - before * part // parts
        yield Credit(visit.left_ms - visit.dwell_ms * (2 * part + 1) // (2 * parts), channel, n, visit.user)


class Watch(msgspec.Struct, gc=False):
    """How many records of a kind came since the last look, and how many of them were odd."""

    n: int = 0
    n_odd: int = 0
    looked_ms: int = 0
    found_ms: int = -1
    wait: int = 0
    """Records to wait for after a look that found nobody new: a share of what it read, so that looks stay cheap."""

    def note(self, odd: int) -> None:
        """Count a record, and how odd it was."""
        self.n += 1
        self.n_odd += odd

    def is_due(self, now_ms: int, pasts: dict[int, Past], settings: QualitySettings) -> bool:
        """Tell whether enough is odd to look, given how odd honest visits are."""
        if now_ms - self.looked_ms < settings.inquest_interval_ms or self.n < self.wait:
            return False
        is_warm = self.found_ms >= 0 and now_ms - self.found_ms < 6 * settings.inquest_interval_ms
        if is_warm:
            return self.n_odd >= 3
        if self.n_odd >= settings.least_odd and self.n_odd * ODD_SHARE >= self.n:
            past = whole(pasts)
            usual = (past.n_device + past.n_block + 5.0) / (past.n + 50.0)
            return surplus(self.n_odd, max(self.n * usual, 1.0)) >= 3.0
        if self.n >= WINDOW:
            self.n = self.n_odd = 0
        return False

    def look(self, now_ms: int, n_read: int, *, n_fresh: int, n_found: int) -> None:
        """Note a look: how many users it found, and how many of them nobody had found before.

        Who is found again shows an attack that may be going on: the next look waits less than after an empty one.
        """
        self.n = self.n_odd = 0
        self.looked_ms = now_ms
        self.wait = 0 if n_fresh else n_read // (WAIT_KNOWN if n_found else WAIT_EMPTY)
        if n_fresh:
            self.found_ms = now_ms


class Evidence(msgspec.Struct, gc=False):
    """A room's memory of visits, texts and marks; tokens only."""

    devices: Generations = msgspec.field(default_factory=lambda: Generations(SOURCE_MEMORY_MS))
    addresses: Generations = msgspec.field(default_factory=lambda: Generations(SOURCE_MEMORY_MS))
    texts: Generations = msgspec.field(default_factory=lambda: Generations(TEXT_MEMORY_MS))
    visits: bytearray = msgspec.field(default_factory=bytearray)
    comments: bytearray = msgspec.field(default_factory=bytearray)
    doing: dict[int, int] = msgspec.field(default_factory=dict)
    """Of users whose visit goes on: flags, and from bit 8 on the judged events so far."""
    marks: dict[int, int] = msgspec.field(default_factory=dict)
    """Users found invalid, with the families of evidence against them."""
    sources: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Devices and blocks that send nothing but invalid traffic, with when that was last found, and the families."""
    fresh: dict[int, int] = msgspec.field(default_factory=dict)
    """Users of such sources that came since the last visit to the room; marked at the next one."""
    pasts: dict[int, Past] = msgspec.field(default_factory=dict)
    buyers: dict[bytes, int] = msgspec.field(default_factory=dict)
    """Orders by fingerprint, with who placed them: the newest ones."""
    flips: list[bytes] = msgspec.field(default_factory=list)
    """Orders that turned out invalid and are still to be booked so."""
    channels: dict[str, int] = msgspec.field(default_factory=lambda: {"": 0})
    """Place of each channel, and of each segment, that a record may name."""
    segments: dict[str, int] = msgspec.field(default_factory=lambda: {"": 0})
    by_segment: list[list[int]] = msgspec.field(default_factory=lambda: [[0, 0]])
    """Judged events of visits, and invalid ones, by segment, in the session."""
    stays: dict[int, int] = msgspec.field(default_factory=dict)
    n_stays: int = 0
    visit_watch: Watch = msgspec.field(default_factory=Watch)
    comment_watch: Watch = msgspec.field(default_factory=Watch)
    anonymous: Anonymous = msgspec.field(default_factory=Anonymous)

    # -- what an event costs ------------------------------------------------------------------------------------

    def act(self, user: int, flags: int) -> bool:
        """Note a judged event of a visit that goes on; tell whether the user is marked."""
        doing = self.doing
        so_far = doing.get(user)
        if so_far is None:
            self._make_room()
            so_far = 0
        doing[user] = (so_far | flags) + _ONE
        return user in self.marks

    def enter(self, user: int) -> None:
        """Note that a visit began."""
        so_far = self.doing.get(user)
        if so_far is None:
            self._make_room()
            so_far = 0
        self.doing[user] = so_far | CAME

    def _make_room(self) -> None:
        """Forget the oldest half of the visits that go on when there are too many."""
        if len(self.doing) >= MAX_DOING:
            for old in list(self.doing)[: MAX_DOING // 2]:
                del self.doing[old]

    def leave(
        self, user: int, device: int, block: int, now_ms: int, left: tuple[int, int, int, int]
    ) -> tuple[bool, int]:
        """Note a visit that is over, `left` being (ts, dwell_ms, channel, segment).

        Return (is marked, flags of its source).
        """
        left_ms, dwell_ms, channel, segment = left
        so_far = self.doing.pop(user, 0)
        flags, n = so_far & _FLAGS & ~CAME, (so_far >> _N_SHIFT) + 1
        source = 0
        if device and self.devices.meet(device, user, now_ms) > 1:
            source = SHARED_DEVICE
        if block and self.addresses.meet(block, user, now_ms) > 1:
            source |= SHARED_BLOCK
        flags |= source
        odd = source != 0
        fine = fine_stay(dwell_ms)
        stays = self.stays
        count = stays[fine] = stays.get(fine, 0) + 1
        self.n_stays += 1
        if count > 5 and count > 2 * (stays.get(fine - 6, 0) + stays.get(fine + 8, 0)):
            odd = True
        if self.n_stays >= 2 * WINDOW:
            self.stays = {k: v >> 1 for k, v in stays.items() if v > 1}
            self.n_stays = sum(self.stays.values())
            self._forget(now_ms)
        watch = self.visit_watch
        watch.n += 1
        watch.n_odd += odd
        is_marked = user in self.marks
        if not is_marked and self.sources and self.is_source(device, block, now_ms):
            is_marked = True
            self.fresh[user] = self.sources.get(device, self.sources.get(block, (0, 0)))[1]
        elif is_marked:
            flags |= MARKED
        n = min(n, _N_MOST)
        self.visits += VISIT.pack(user, device, block, left_ms, min(dwell_ms, 0xFFFFFFFF), channel, flags, n, segment)
        row = self.by_segment[segment]
        row[0] += n
        if flags & MARKED:
            row[1] += n
        if len(self.visits) >= MAX_VISITS * VISIT.size:
            self._let_go(MAX_VISITS // 4)
        return bool(flags & MARKED), source

    def is_source(self, device: int, block: int, now_ms: int) -> bool:
        """Tell whether a device or block was found to send nothing but invalid traffic, not long ago."""
        for source in (device, block):
            seen = self.sources.get(source)
            if seen is not None and now_ms - seen[0] < SOURCE_MEMORY_MS:
                return True
        return False

    def comment(
        self, user: int, said: tuple[int, int, int, int, int, int], now_ms: int, settings: QualitySettings
    ) -> tuple[bool, bool]:
        """Note a comment, `said` being (text, device, block, ts, characters, channel): (is marked, is copied)."""
        text, device, block, at_ms, n_characters, channel = said
        is_copied = is_repeated = False
        odd = 0
        if text and n_characters >= settings.min_repeat_characters:
            n_users, n_own = self.texts.note(text, user, now_ms)
            is_copied, is_repeated = n_users >= settings.repeat_users, n_own >= settings.repeat_own
            odd = is_copied
        if block and self.addresses.meet(block, user, now_ms) > 1:
            odd = 1
        watch = self.comment_watch
        watch.n += 1
        watch.n_odd += odd
        flags = COPIED if is_copied else 0
        self.comments += COMMENT.pack(user, text, device, block, at_ms, n_characters, channel, flags)
        if len(self.comments) >= MAX_COMMENTS * COMMENT.size:
            del self.comments[: MAX_COMMENTS // 4 * COMMENT.size]
        return self.act(user, COPIED | 2 if is_copied else 2), is_copied or is_repeated

    def channel(self, name: str) -> int:
        """Return the place of a channel; 0 for one too many."""
        place = self.channels.get(name)
        return self._place(self.channels, name) if place is None else place

    def segment(self, name: str | None) -> int:
        """Return the place of a segment; 0 for none and for one too many."""
        if name is None:
            return 0
        place = self.segments.get(name)
        if place is None:
            place = self._place(self.segments, name)
            if place:
                self.by_segment.append([0, 0])
        return place

    @staticmethod
    def _place(places: dict[str, int], name: str) -> int:
        if len(places) >= MAX_PLACES:
            return 0
        places[name] = len(places)
        return places[name]

    def bought(self, fingerprint: bytes, user: int) -> bool:
        """Note whose an order is; tell whether that one is marked."""
        buyers = self.buyers
        if fingerprint not in buyers:
            if len(buyers) >= MAX_BUYERS:
                del buyers[next(iter(buyers))]
            buyers[fingerprint] = user
        return user in self.marks

    def is_marked(self, user: int | None) -> bool:
        """Tell whether a user was found invalid."""
        return user is not None and user in self.marks

    # -- what a visit to the room does --------------------------------------------------------------------------

    def review(self, now_ms: int, settings: QualitySettings) -> list[Credit]:
        """Hold the inquests that are due; return the invalid events that were not counted as such yet."""
        credits: list[Credit] = []
        if self.fresh:
            found = {user: Guilt(families, "source") for user, families in self.fresh.items()}
            self.fresh = {}
            credits += self._credit(self._mark(found), now_ms)
        watch = self.visit_watch
        if watch.n and watch.is_due(now_ms, self.pasts, settings):
            self._forget(now_ms)
            log = read_visits(self.visits)
            guilty = inquest(log, self.pasts, now_ms, settings, self.marks)
            found = {}
            for place, guilt in guilty.items():
                found.setdefault(log[place].user, guilt)
            self._name_sources(log, guilty, now_ms)
            fresh = self._mark(found)
            watch.look(now_ms, len(log), n_fresh=len(fresh), n_found=len(found))
            credits += self._credit(fresh, now_ms)
        watch = self.comment_watch
        if watch.n and watch.is_due(now_ms, self.pasts, settings):
            said = read_comments(self.comments)
            found = writers(said, self._acts(), whole(self.pasts), settings)
            fresh = self._mark(found)
            watch.look(now_ms, len(said), n_fresh=len(fresh), n_found=len(found))
            credits += self._credit(fresh, now_ms)
        names = list(self.channels)
        credits += [Credit(ts, names[channel], n) for ts, channel, n in self.anonymous.review(now_ms, settings)]
        return credits

    def _name_sources(self, log: list[Visit], guilty: dict[int, Guilt], now_ms: int) -> None:
        """Remember the devices and blocks whose visits are all invalid: their next visitor is, from the first event."""
        n_of: dict[int, list[int]] = {}
        users: dict[int, set[int]] = {}
        for place, visit in enumerate(log):
            is_guilty = place in guilty or visit.user in self.marks
            for source in (visit.device, visit.block):
                row = n_of.setdefault(source, [0, 0, 0])
                row[0] += 1
                row[1] += is_guilty
                if place in guilty:
                    row[2] |= guilty[place].families
                if is_guilty:
                    users.setdefault(source, set()).add(visit.user)
        for source, (n, n_guilty, families) in n_of.items():
            if source and families and len(users.get(source, ())) >= PURE_USERS and n_guilty * 20 >= n * 19:
                self.sources.pop(source, None)
                self.sources[source] = (now_ms, families)
        while len(self.sources) > MAX_SOURCES:
            del self.sources[next(iter(self.sources))]

    def _forget(self, now_ms: int) -> None:
        """Let visits go that ended longer ago than sources are remembered."""
        log, size = self.visits, VISIT.size
        n = 0
        while (n + 1) * size <= len(log) and VISIT.unpack_from(log, n * size)[3] < now_ms - SOURCE_MEMORY_MS:
            n += 1
        if n:
            self._let_go(n)

    def _acts(self) -> dict[int, int]:
        """Return what is known of each user's visits but for their comments: flags."""
        acts = {user: so_far & _FLAGS for user, so_far in self.doing.items()}
        for visit in read_visits(self.visits):
            acts[visit.user] = acts.get(visit.user, 0) | visit.flags | CAME
        return acts

    def _mark(self, found: dict[int, Guilt]) -> set[int]:
        """Mark users; return those who were not marked yet."""
        fresh = set()
        for user, guilt in found.items():
            if user not in self.marks:
                if len(self.marks) >= MAX_MARKS:
                    del self.marks[next(iter(self.marks))]
                fresh.add(user)
                self.marks[user] = guilt.families
            else:
                self.marks[user] |= guilt.families
        return fresh

    def _credit(self, fresh: set[int], now_ms: int) -> Iterator[Credit]:
        """Return what users did before they were marked; their orders are to be booked anew."""
        if not fresh:
            return
        size, log, names = VISIT.size, self.visits, list(self.channels)
        for place, visit in enumerate(read_visits(log)):
            if visit.user in fresh and not visit.flags & MARKED:
                log[place * size + FLAGS_AT] |= MARKED
                self.by_segment[visit.segment][1] += visit.n
                yield from _over(visit, names[visit.channel])
        left: dict[int, int] = {}
        for visit in read_visits(log):
            if visit.user in fresh:
                left[visit.user] = max(visit.left_ms, left.get(visit.user, -1))
        said: dict[int, list[Comment]] = {}
        for comment in read_comments(self.comments):
            if comment.user in fresh and comment.at_ms > left.get(comment.user, -1):
                said.setdefault(comment.user, []).append(comment)
        for user in sorted(fresh & self.doing.keys()):
            so_far = self.doing[user]
            n = so_far >> _N_SHIFT
            if n == 0:
                continue
            self.doing[user] = so_far & _FLAGS
            # Comments count at their own moments; likes and clicks, of which only the number is kept, with the last.
            mine = said.get(user, [])[-n:]
            for comment in mine:
                yield Credit(comment.at_ms, names[comment.channel], 1, user)
            if n > len(mine):
                at_ms, channel = (mine[-1].at_ms, names[mine[-1].channel]) if mine else (now_ms - 1, "")
                yield Credit(at_ms, channel, n - len(mine), user)
        self.flips += [fingerprint for fingerprint, user in self.buyers.items() if user in fresh]

    def _let_go(self, n: int) -> None:
        """Let the oldest visits go; honest ones are counted into what is usual of their channel."""
        size = n * VISIT.size
        for visit in read_visits(self.visits[:size]):
            if not visit.flags & MARKED:
                past = self.pasts.get(visit.channel)
                if past is None:
                    past = self.pasts[visit.channel] = Past()
                past.add(visit)
        del self.visits[:size]

    def told(self) -> dict[str, Any]:
        """Return what an anomaly tells: whom it blames, and the families of evidence by how many users they mark."""
        families = {
            name: n for bit, name in FAMILIES.items() if (n := sum(bool(found & bit) for found in self.marks.values()))
        }
        return {"blame": blame(read_visits(self.visits), list(self.channels)), "families": families}

    def shrunk(self) -> Evidence:
        """Return what stays of a room that nobody hears of: figures by segment, and what is to be booked."""
        return Evidence(channels=self.channels, segments=self.segments, by_segment=self.by_segment, flips=self.flips)

    def begin_session(self) -> None:
        """Count the new session's segments anew; what is known of bots goes on."""
        self.by_segment = [[0, 0] for _ in self.segments]
