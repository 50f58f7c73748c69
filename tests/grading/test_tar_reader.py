"""Archives whose headers lie: each is refused, at once and in little memory."""

from __future__ import annotations

import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.grading.tree import LINK, BadTreeError, read_tar
from rollmill.sandboxes.tree_limits import TreeLimits

END = bytes(1024)
MOST = 1 << 20


def header(
    name: bytes = b"a",
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """Return a tar header with a right checksum; `size` may be the bytes of its field."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")
    block[100:108], block[124:136], block[136:148] = b"0000644\0", field.ljust(12, b"\0"), b"00000000000\0"
    block[148:156], block[156:157], block[157:257] = b" " * 8, kind, target.ljust(100, b"\0")
    block[257:265], block[345:500] = magic, prefix.ljust(155, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def attributes(*records: bytes) -> bytes:
    content = b"".join(records)
    return header(b"pax", kind=b"x", size=len(content)) + padded(content)


HOSTILE = {
    "attributes of gigabytes": header(kind=b"x", size=8 << 30) + END,
    "attributes longer than a path may be": header(kind=b"x", size=1 << 16) + bytes(1 << 16) + END,
    "a name of gigabytes": header(b"././@LongLink", kind=b"L", size=4 << 30) + END,
    "a chain of long names": (header(kind=b"L", size=2) + padded(b"b\0")) * 50_000 + header() + END,
    "a chain of attributes": attributes(b"9 path=b\n") * 50_000 + header() + END,
    "a sparse file": header(kind=b"S", size=0) + END,
    "a sparse file of pax": attributes(b"22 GNU.sparse.major=1\n") + header() + END,
    "a size beyond the archive": header(size=0o77777777777) + END,
    "a negative size": header(size=b"\xff" * 12) + END,
    "a size of base 256": header(size=b"\x80" + b"\xff" * 11) + END,
    "a size of words": header(size=b"many") + END,
    "a size of pax": attributes(b"19 size=9999999999\n") + header() + END,
    "a size of pax of many digits": attributes(b"27 size=" + b"9" * 18 + b"\n") + header() + END,
    "a negative length of pax": attributes(b"-9 path=b\n") + header() + END,
    "a length of nothing": attributes(b"0 path=b\n") + header() + END,
    "a length too short for its own digits": attributes(b"1 path=b\n") + header() + END,
    "an unknown kind": header(kind=b"M") + END,
    "a continued volume": header(kind=b"V") + END,
    "a wrong checksum": header()[:-1] + b"x" + END,
    "no end": header(),
    "nothing": b"",
    "half a header": header()[:100],
    "many empty files": b"".join(header(b"%d" % number) for number in range(60_000)) + END,
    "many empty folders": header(b"a/", kind=b"5") * 60_000 + END,
    "many hard links": header(b"a", size=1000)
    + padded(b"x" * 1000)
    + header(b"b", kind=b"1", target=b"a") * 2000
    + END,
    "a hard link to itself": header(b"a", kind=b"1", target=b"a") + END,
    "a hard link to a folder": header(b"f/", kind=b"5") + header(b"a", kind=b"1", target=b"f") + END,
    "a file beneath a file": header(b"a") + header(b"a/b") + END,
    "a file beneath a link": header(b"a", kind=b"2", target=b"/etc") + header(b"a/b/c") + END,
    "too deep": attributes(b"249 path=" + b"/".join([b"a"] * 120) + b"\n") + header() + END,
    "outside by attributes": attributes(b"16 path=../../x\n") + header() + END,
    "outside by prefix": header(b"x", prefix=b"/etc") + END,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archive_is_refused_in_little_memory(what: str) -> None:
    archive = HOSTILE[what]
    tracemalloc.start()
    try:
        with pytest.raises(BadTreeError):
            read_tar(archive, most=MOST)
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()


def test_limits_on_entries_names_depth_and_files_hold() -> None:
    archive = header(b"dir/", kind=b"5") + header(b"dir/a", size=3) + padded(b"abc") + header(b"b" * 50) + END
    for limits, reason in (
        (TreeLimits(entries=2), "more than 2 files and folders"),
        (TreeLimits(name_bytes=58), "names take more than 58 bytes"),
        (TreeLimits(path_bytes=49), "path of 50 bytes"),
        (TreeLimits(depth=1), "more than 1 folders deep"),
        (TreeLimits(file_bytes=2), "more than may be looked at"),
    ):
        with pytest.raises(BadTreeError, match=reason):
            read_tar(archive, most=MOST, limits=limits)
    exact = TreeLimits(entries=3, name_bytes=59, path_bytes=50, depth=2, file_bytes=3)
    assert sorted(read_tar(archive, most=3, limits=exact)) == [b"b" * 50, b"dir/a"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_is_read(form: int) -> None:
    names = ["short", "f/" + "n" * 98, "f/" * 20 + "n" * 90, "é"]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = number, 1.5 if form == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(b"x" * number))
    tree = read_tar(file.getvalue(), most=MOST)
    assert {path.decode(): len(entry.content) for path, entry in tree.items()} == {
        name: number for number, name in enumerate(names)
    }


BLOCKS = st.one_of(
    st.builds(
        header,
        st.sampled_from([b"a", b"b/c", b"a/d", b"../x", b"/y", b"", b"z" * 100]),
        kind=st.sampled_from([bytes([byte]) for byte in b"01234567LKxgSDMN\0"]),
        size=st.one_of(st.integers(0, 2000), st.binary(min_size=12, max_size=12)),
        target=st.sampled_from([b"", b"a", b"b/c", b"nowhere", b"/etc/passwd"]),
        magic=st.sampled_from([b"ustar\x0000", b"ustar  \0"]),
    ),
    st.sampled_from([b"9 path=b\n", b"99 path=b\n", b"13 size=1000\n", b"path\0", b"15 linkpath=a/b\n"]).map(padded),
    st.binary(min_size=512, max_size=512),
)


@given(st.lists(BLOCKS, max_size=12), st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_mutated_archive_ends_as_a_tree_within_limits_or_is_refused(
    blocks: list[bytes], ends: bool, data: st.DataObject
) -> None:
    archive = bytearray(b"".join(blocks) + (END if ends else b""))
    for _ in range(data.draw(st.integers(0, 3))):
        if archive:
            archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    limits = TreeLimits(entries=6, depth=3, path_bytes=100, file_bytes=1500)
    try:
        tree = read_tar(bytes(archive), most=2000, limits=limits)
    except BadTreeError:
        return
    assert len(tree) <= 6
    assert sum(len(file.content) for file in tree.values() if file.mode != LINK) <= 2000
    for path in tree:
        names = path.split(b"/")
        assert len(names) <= 3
        assert not {b"", b".", b"..", b".git"} & set(names)
        assert not any(b"/".join(names[:end]) in tree for end in range(1, len(names)))
