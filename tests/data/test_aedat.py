"""AEDAT 3.1 files and DVS128 Gesture folders: read as written, and every damage named or harmless."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from qspinn.data import load_events
from qspinn.data.events import aedat, dvs_gesture
from qspinn.data.events.aedat import read_aedat, write_aedat
from qspinn.data.events.dvs_gesture import Recording, Skipped, gesture_recordings, gesture_set, labels_of
from qspinn.data.events.recording import EVENT, Events, bin_events, crop_time, downsample, join, make
from qspinn.errors import ConfigError, DataError
from samples import AEDAT_SAMPLES, needs_aedat_samples

TEXT = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def events_of(n: int, seed: int = 0, span_us: int = 1_000_000, start_us: int = 0) -> Events:
    rng = np.random.default_rng([seed, 8])
    return make(
        rng.integers(0, 128, n),
        rng.integers(0, 128, n),
        start_us + np.sort(rng.integers(0, span_us, n)),
        rng.random(n) < 0.5,
    )


def packet(events: Events, **fields: int) -> bytes:
    """A packet written with struct alone; `fields` replace those of its header."""
    values = {
        "type": 1,
        "source": 1,
        "size": 8,
        "ts_offset": 4,
        "overflow": 0,
        "capacity": len(events),
        "number": len(events),
        "valid": len(events),
    } | fields
    body = b"".join(
        struct.pack(
            "<Ii", int(e["x"]) << 17 | int(e["y"]) << 2 | int(e["p"]) << 1 | 1, int(e["t"]) - (values["overflow"] << 31)
        )
        for e in events
    )
    return struct.pack("<HHIIIIII", *values.values()) + body


def whole(path: Path, **window: int) -> Events:
    return join(read_aedat(path, **window))


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        whole(path)
    assert caught.value.where == str(path)


def test_bytes_by_hand(tmp_path: Path) -> None:
    events = events_of(9)
    (tmp_path / "a.aedat").write_bytes(TEXT + packet(events[:5]) + packet(events[5:]))
    np.testing.assert_array_equal(whole(tmp_path / "a.aedat"), events)
    write_aedat(tmp_path / "b.aedat", events, packet_events=5)
    assert (tmp_path / "b.aedat").read_bytes() == (tmp_path / "a.aedat").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.aedat", "b.aedat"]


def test_coordinates_have_fifteen_bits(tmp_path: Path) -> None:
    edge = make(np.array([0, 32767, 0, 32767]), np.array([32767, 0, 0, 32767]), np.arange(4), np.array([1, 0, 0, 1]))
    write_aedat(tmp_path / "x.aedat", edge)
    np.testing.assert_array_equal(whole(tmp_path / "x.aedat"), edge)
    (tmp_path / "y.aedat").write_bytes(TEXT + packet(edge))
    np.testing.assert_array_equal(whole(tmp_path / "y.aedat"), edge)


def test_windows_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events, path = events_of(500), tmp_path / "x.aedat"
    write_aedat(path, (events[i : i + 130] for i in range(0, 500, 130)), packet_events=100)
    monkeypatch.setattr(aedat, "BLOCK", 32)
    blocks = list(read_aedat(path))
    assert max(len(b) for b in blocks) == 32
    np.testing.assert_array_equal(join(blocks), events)
    for start, stop in ((0, 10**6), (250_000, 700_000), (999_999, 10**9), (5, 5)):
        expected = crop_time(events, start, stop)
        np.testing.assert_array_equal(whole(path, start_us=start, stop_us=stop), expected)
    np.testing.assert_array_equal(whole(path, start_us=400_000), crop_time(events, 400_000, 10**9))


def test_reading_ends_with_the_window(tmp_path: Path) -> None:
    events, path = events_of(300), tmp_path / "x.aedat"
    good = TEXT + b"".join(packet(events[i : i + 100]) for i in (0, 100, 200))
    path.write_bytes(good + b"garbage")
    stop = int(events["t"][150])
    np.testing.assert_array_equal(whole(path, stop_us=stop), crop_time(events, 0, stop))
    refused(path, good + b"garbage", f"byte {len(good)}: packet header is cut short")


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One packet of a million events is never in memory whole."""
    import tracemalloc

    path = tmp_path / "x.aedat"
    write_aedat(path, events_of(1_000_000), packet_events=1_000_000)
    monkeypatch.setattr(aedat, "BLOCK", 4096)
    tracemalloc.start()
    n = sum(len(block) for block in read_aedat(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 1_000_000
    assert peak < 1 << 20


def test_a_wrapped_timestamp_goes_into_the_overflow_counter(tmp_path: Path) -> None:
    events, path = events_of(400, start_us=2**31 - 500_000), tmp_path / "x.aedat"
    assert events["t"][0] < 2**31 < events["t"][-1]
    write_aedat(path, events)
    np.testing.assert_array_equal(whole(path), events)
    later = events_of(20, start_us=5 * 2**31)
    path.write_bytes(TEXT + packet(later, overflow=5))
    np.testing.assert_array_equal(whole(path), later)
    n_first = int(np.searchsorted(events["t"], 2**31))
    wrapped = events.copy()
    wrapped["t"][n_first:] -= 2**31  # a camera that forgot to count
    refused(
        path,
        TEXT + packet(wrapped[:n_first]) + packet(wrapped[n_first:]),
        f"byte {len(TEXT) + 28 + 8 * n_first + 32}: time of the packet is out of order",
    )
    with pytest.raises(DataError, match=rf"t\[{n_first}\]: timestamps wrapped"):
        write_aedat(path, wrapped)


def test_other_packets_and_invalid_events_are_passed_over(tmp_path: Path) -> None:
    events, path = events_of(6), tmp_path / "x.aedat"
    frame = struct.pack("<HHIIIIII", 2, 0, 40, 12, 0, 2, 2, 2) + bytes(80)
    some = bytearray(packet(events, valid=5))
    some[28 + 8 * 2] &= 0xFE
    path.write_bytes(TEXT + frame + packet(events[:0]) + bytes(some) + frame)
    np.testing.assert_array_equal(whole(path), np.delete(events, 2))
    refused(path, TEXT + packet(events, valid=5), f"byte {len(TEXT) + 24}: wrong number of valid events; got 6")


def test_every_truncation_is_refused_unless_at_the_end_of_a_packet(tmp_path: Path) -> None:
    events, path = events_of(12), tmp_path / "x.aedat"
    write_aedat(path, events, packet_events=5)
    content = path.read_bytes()
    borders = {len(TEXT): 0, len(TEXT) + 68: 5, len(TEXT) + 136: 10, len(content): 12}
    assert content[: len(TEXT)] == TEXT
    for size in range(len(content) + 1):
        if size in borders:  # nothing in the format says how many packets there are
            path.write_bytes(content[:size])
            np.testing.assert_array_equal(whole(path), events[: borders[size]])
            continue
        at = max([b for b in borders if b <= size], default=0)
        message = r"byte \d+: (is not an AEDAT|text header)"
        if size > len(TEXT):
            short = size - at < 28
            message = f"byte {at}: packet header" if short else f"byte {at + 20}: packet is cut short"
        refused(path, content[:size], message)


def test_flipped_header_bits_are_refused_or_harmless(tmp_path: Path) -> None:
    """Every bit of the first two packet headers; a changed type can hide a packet, a larger capacity changes nothing,
    and nothing else goes unseen."""
    events, path = events_of(12), tmp_path / "x.aedat"
    write_aedat(path, events, packet_events=5)
    content, seen = path.read_bytes(), 0
    for start in (len(TEXT), len(TEXT) + 68):
        for at in range(start, start + 28):
            for bit in range(8):
                path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
                try:
                    got = whole(path)
                except DataError as error:
                    seen += "byte " in str(error)
                    continue
                if at < start + 2:
                    assert len(got) == 7
                elif start + 16 <= at < start + 20:
                    assert np.array_equal(got, events)
                else:
                    assert (at, bit) == (len(TEXT) + 12, 0), "first packet's overflow"
    assert seen >= 2 * (28 - 4) * 8 - 8


@pytest.mark.parametrize(
    ("field", "value", "offset", "message"),
    [
        ("type", 0x8001, 0, r"unknown event type \(or compressed packet\)"),
        ("type", 14, 0, "unknown event type"),
        ("size", 16, 4, "wrong event size"),
        ("ts_offset", 0, 8, "wrong place of the timestamp"),
        ("overflow", 1 << 31, 12, "timestamp overflow is negative"),
        ("capacity", 5, 16, "capacity is below the number"),
        ("valid", 7, 24, "more valid events than events"),
        ("valid", 0, 24, "wrong number of valid events"),
    ],
)
def test_headers_that_break_the_format(tmp_path: Path, field: str, value: int, offset: int, message: str) -> None:
    body = packet(events_of(6))[28:]
    broken = packet(events_of(0), **({"capacity": 6, "number": 6, "valid": 6} | {field: value}))
    refused(tmp_path / "x.aedat", TEXT + broken + body, f"byte {len(TEXT) + offset}: {message}")


def test_sources_and_times_that_cannot_be(tmp_path: Path) -> None:
    events, path = events_of(6), tmp_path / "x.aedat"
    other = packet(events[3:], source=2)
    refused(path, TEXT + packet(events[:3]) + other, f"byte {len(TEXT) + 54}: event source changes")
    refused(path, TEXT + packet(events[3:]) + packet(events[:3]), "out of order")
    refused(path, TEXT + packet(events[:3]) + packet(events_of(3, start_us=2**31), overflow=1), "out of order")
    bad = bytearray(TEXT + packet(events))
    bad[len(TEXT) + 28 + 8 * 4 + 7] |= 0x80
    refused(path, bytes(bad), f"byte {len(TEXT) + 28 + 8 * 4 + 4}: timestamp is negative")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: is not an AEDAT 3.1 file"),
        (b"#!AER-DAT2.0\r\n" + TEXT[14:], "byte 0: is not an AEDAT 3.1 file"),
        (TEXT.replace(b"RAW", b"Serial-TS"), "byte 14: format is not supported"),
        (TEXT.replace(b"#Source", b"Source"), "byte 28: text header is damaged"),
        (TEXT[:14] + b"#" * 5000, "byte 14: text header is damaged"),
        (TEXT[:14] + b"#a\r\n" * 2000, "byte 4106: text header does not end; got '1024 lines'"),
    ],
)
def test_text_headers(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path / "x.aedat", content, message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.aedat: cannot be read; got 'No such file"):
        whole(tmp_path / "none.aedat")


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    events, path = events_of(10), tmp_path / "x.aedat"
    pause = events.copy()
    pause["t"][5:] += 1 << 31
    negative = events.copy()
    negative["t"][0] = -5
    for bad, message in (
        ([events[5:], events[:5]], "not in order"),
        (events[::-1], "not in order"),
        (pause, "pause for too long"),
        (negative, "wrapped"),
    ):
        with pytest.raises(DataError, match=message):
            write_aedat(path, bad)
        assert list(tmp_path.iterdir()) == []
    write_aedat(path, events[:0])
    assert whole(path).dtype == EVENT
    assert len(whole(path)) == 0


@needs_aedat_samples
@pytest.mark.parametrize("name", ["class01", "class06", "class09"])
def test_real_recordings_survive_writing_and_reading(tmp_path: Path, name: str) -> None:
    with np.load(AEDAT_SAMPLES / f"{name}.npz") as file:
        events = make(file["x"], file["y"], file["t"], file["p"])
    assert len(events) > 60_000
    write_aedat(tmp_path / "x.aedat", events)
    np.testing.assert_array_equal(whole(tmp_path / "x.aedat"), events)


# DVS128 Gesture


def folder_of(tmp_path: Path, users: int = 6, n: int = 400) -> Path:
    """Recordings of 11 gestures, 1 s each with pauses of 0.1 s; the last user is for test."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for user in range(1, users + 1):
        name = f"user{user:02}_led"
        lists["test" if user == users else "train"].append(f"{name}.aedat")
        write_aedat(tmp_path / f"{name}.aedat", events_of(11 * n, user, 12_100_000, 3_000_000))
        rows = [f"{k + 1},{3_000_500 + k * 1_100_000},{4_000_500 + k * 1_100_000}" for k in range(11)]
        (tmp_path / f"{name}_labels.csv").write_text("\r\n".join(["class,startTime_usec,endTime_usec", *rows, ""]))
    for part, names in lists.items():
        (tmp_path / f"trials_to_{part}.txt").write_text("\n".join([*names, ""]))
    return tmp_path


def test_gestures_are_cut_from_their_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, users=3)
    monkeypatch.setattr(aedat, "BLOCK", 100)
    for n_ms, length in ((300, 300_000), (5000, 1_000_000)):
        found = list(gesture_recordings(folder, "train", n_ms=n_ms))
        assert all(isinstance(r, Recording) for r in found)
        assert [r.file for r in found] == ["user01_led.aedat"] * 11 + ["user02_led.aedat"] * 11
        assert [r.gesture.label for r in found] == [*range(11)] * 2
        for i, recording in enumerate(found):
            start = 3_000_500 + i % 11 * 1_100_000
            expected = crop_time(events_of(4400, 1 + i // 11, 12_100_000, 3_000_000), start, start + length)
            np.testing.assert_array_equal(recording.events, expected)
            assert expected.size


def test_windows_may_overlap() -> None:
    events = events_of(1000)
    windows = [(0, 500_000), (100_000, 200_000), (100_000, 900_000), (150_000, 160_000), (950_000, 10**7)]
    blocks = [events[i : i + 37] for i in range(0, 1000, 37)]
    for (start, stop), got in zip(windows, dvs_gesture.cut(blocks, windows), strict=True):
        np.testing.assert_array_equal(got, crop_time(events, start, stop))


def test_gestures_in_bins(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=2)
    found = gesture_set(folder, "test", bin_ms=50.0, n_bins=30, to=(32, 16), binary=False)
    assert (found.events.n_samples, found.events.shape, found.skipped) == (11, (2, 32, 16), ())
    for i, recording in enumerate(gesture_recordings(folder, "test")):
        events = downsample(recording.events, (128, 128), (32, 16))
        binned = bin_events(events, (32, 16), 50_000, 30, start_us=recording.gesture.start_us, binary=False)
        raster = np.zeros((30, 2 * 32 * 16), np.int64)
        raster[binned.bin, binned.address] = binned.counts
        np.testing.assert_array_equal(found.events.slice(i, i + 1).dense().reshape(30, -1), raster)
        assert not raster[20:].any(), "gestures last one second"
        assert raster[:20].any()
    with pytest.raises(ConfigError, match="bin_ms"):
        gesture_set(folder, "test", bin_ms=0.0005)


def test_the_data_set_holds_out_users(tmp_path: Path) -> None:
    whole_set = load_events("dvs_gesture", str(folder_of(tmp_path, users=7)), bin_ms=20.0)
    assert [p.n_samples for _, p in whole_set.parts()] == [2 * 11, 4 * 11, 11]
    assert (whole_set.n_steps, whole_set.shape, whole_set.bin_ms) == (75, (2, 32, 32), 20.0)
    assert "3, 4, 5, 6 for validation" in whole_set.split_rule
    expected = gesture_set(tmp_path, "train", bin_ms=20.0, n_bins=75).events
    np.testing.assert_array_equal(whole_set.train.compact().index, expected.slice(0, 22).compact().index)
    np.testing.assert_array_equal(whole_set.validation.compact().index, expected.slice(22, 66).compact().index)


def test_too_few_users_and_missing_classes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=5)
    with pytest.raises(DataError, match="too few users"):
        load_events("dvs_gesture", str(folder))
    folder_of(tmp_path, users=6)
    labels = folder / "user01_led_labels.csv"
    labels.write_text("\n".join(line for line in labels.read_text().splitlines() if not line.startswith("9,")))
    with pytest.raises(DataError, match=r"no recording of some classes; got \['air drums'\]"):
        load_events("dvs_gesture", str(folder))


def break_labels(folder: Path, old: str, new: str) -> None:
    path = folder / "user02_led_labels.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut_short(folder: Path) -> None:
    path = folder / "user02_led.aedat"
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES = {
    r"user02_led\.aedat: cannot be read": lambda f: (f / "user02_led.aedat").unlink(),
    r"user02_led_labels\.csv: is missing": lambda f: (f / "user02_led_labels.csv").unlink(),
    r"user02_led_labels\.csv:4: unknown class; got 12; allowed: 1\.\.11": lambda f: break_labels(f, "\n3,", "\n12,"),
    r"user02_led_labels\.csv:2: unknown class; got 0": lambda f: break_labels(f, "\n1,", "\n0,"),
    r"user02_led_labels\.csv:2: is not a label": lambda f: break_labels(f, "\n1,", "\none,"),
    r"user02_led_labels\.csv:3: gesture ends before": lambda f: break_labels(f, ",5100500", ",4000000"),
    r"user02_led_labels\.csv: is not a label file": lambda f: break_labels(f, "class", "klass"),
    r"user02_led_labels\.csv: gesture lies outside of user02": lambda f: break_labels(f, ",15000500", ",17000500"),
    r"\.csv: gesture lies outside of .*got \(1999": lambda f: break_labels(f, ",3000500", ",1999999"),
    r"user02_led\.aedat: byte \d+: packet is cut short": cut_short,
    r"user02_led\.aedat: recording is empty": lambda f: write_aedat(f / "user02_led.aedat", events_of(0)),
    r"user02_led\.aedat: gesture has no events": lambda f: write_aedat(
        f / "user02_led.aedat", join([events_of(9, 0, 400, 3_000_000), events_of(99, 0, 9 * 10**6, 6 * 10**6)])
    ),
    r"user02_led\.aedat gesture 0\.x\[\d+\]: is outside the sensor": lambda f: write_aedat(
        f / "user02_led.aedat",
        make(*(np.array([v] * 2) for v in (128, 3)), np.array([3_000_000, 3_000_600]), np.ones(2)),
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_files_stop_or_are_skipped_by_name(tmp_path: Path, message: str) -> None:
    folder = folder_of(tmp_path, users=4, n=40)
    DAMAGES[message](folder)
    if "gesture 0" in message:
        (folder / "user02_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,3000500,3000900\n")
    with pytest.raises(DataError, match=message):
        list(gesture_recordings(folder, "train"))
    found = list(gesture_recordings(folder, "train", on_error="skip"))
    assert [getattr(f, "file", None) for f in found] == ["user01_led.aedat"] * 11 + ["user02_led.aedat"] + [
        "user03_led.aedat"
    ] * 11
    assert isinstance(found[11], Skipped)
    assert str(folder) in found[11].reason
    binned = gesture_set(folder, "train", on_error="skip")
    assert binned.skipped == (found[11],)
    assert binned.files == ("user01_led.aedat",) * 11 + ("user03_led.aedat",) * 11


def test_damage_after_the_last_gesture_counts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=2)
    with (folder / "user01_led.aedat").open("ab") as file:
        file.write(packet(events_of(5, start_us=15_200_000))[:-1])
    with pytest.raises(DataError, match="cut short"):
        list(gesture_recordings(folder, "train"))


def test_skipped_files_stay_with_the_data_set(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=7, n=40)
    cut_short(folder)
    with pytest.raises(DataError, match="cut short"):
        load_events("dvs_gesture", str(folder))
    kept = load_events("dvs_gesture", str(folder), on_error="skip")
    assert len(kept.skipped) == 1
    assert kept.skipped[0].startswith("user02_led.aedat: ")
    with pytest.raises(ConfigError, match="does not have this setting"):
        load_events("synthetic_gestures", on_error="skip")


def test_lists_of_files_are_needed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=2)
    (folder / "trials_to_train.txt").unlink()
    with pytest.raises(DataError, match=r"trials_to_train\.txt: is missing"):
        list(gesture_recordings(folder, "train", on_error="skip"))
    for text in ("", "../../etc/passwd\n", "user01_led.aedat\n/user.aedat\n"):
        (folder / "trials_to_train.txt").write_text(text)
        with pytest.raises(DataError, match="does not list recordings"):
            list(gesture_recordings(folder, "train"))
    (folder / "user02_led.aedat").unlink()
    with pytest.raises(DataError, match=r"no recording of part test could be read.*user02_led"):
        gesture_set(folder, "test", on_error="skip")


def test_labels_are_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("class,startTime_usec,endTime_usec\n5,20,30\n2,0,10\n")
    assert [tuple(g) for g in labels_of(path)] == [(1, 0, 10), (4, 20, 30)]
    path.write_text("class,startTime_usec,endTime_usec\n")
    with pytest.raises(DataError, match="has no labels"):
        labels_of(path)


def test_disorder_within_a_gesture(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=2)
    path, events = folder / "user01_led.aedat", events_of(4400, 1, 12_100_000, 3_000_000)
    events["t"][[600, 601]] = events["t"][[601, 600]]
    path.write_bytes(TEXT + packet(events))
    with pytest.raises(DataError, match=r"gesture 1\.t\[\d+\]: events are not in order.*order=\"sort\" of "):
        list(gesture_recordings(folder, "train"))
    found = list(gesture_recordings(folder, "train", order="sort"))
    assert len(found) == 11
    assert (np.diff(found[1].events["t"]) >= 0).all()


def test_settings_of_gestures_are_known(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, users=2)
    for named in ({"order": "unwrap"}, {"on_error": "go on"}, {"n_ms": 1.5}):
        with pytest.raises(ConfigError, match=rf"gesture_recordings\.{next(iter(named))}"):
            list(gesture_recordings(folder, "train", **named))
    with pytest.raises(ConfigError, match=r"part: is unknown; got 'validation'"):
        list(gesture_recordings(folder, "validation"))
