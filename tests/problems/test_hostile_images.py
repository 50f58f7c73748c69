"""Rows that name files of the host, or images that would exhaust memory."""

import base64
import io
import os
import socket
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import orjson
import pytest
from datasets.utils.extract import ExtractManager
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pictures

from rollmill.errors import InputError
from rollmill.files import confined
from rollmill.files.confined import ConfinedFileError, confined_path, read_confined
from rollmill.problems import Prompting, build_messages, images, to_openai
from rollmill.problems.cells import UnusableCellError
from rollmill.problems.hub import unpacked_folders
from rollmill.problems.images import ImageStore
from tests.problems.conftest import make_png

SECRET = "token-of-the-host"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Make a data set's folder, `data`, with all kinds of entries, and files beside it."""
    data = tmp_path / "data"
    (data / "inside").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.png").write_bytes(make_png(9))
    (tmp_path / "secret.txt").write_text(SECRET)
    (data / "a.png").write_bytes(make_png(1))
    (data / "inside" / "b.png").write_bytes(make_png(2))
    (data / "text.png").write_text(SECRET)
    (data / "to_secret.png").symlink_to(tmp_path / "other" / "secret.png")
    (data / "to_folder").symlink_to(tmp_path / "other")
    (data / "to_inside.png").symlink_to(data / "inside" / "b.png")
    (data / "to_zero.png").symlink_to("/dev/zero")
    (data / "to_environment.png").symlink_to("/proc/self/environ")
    (data / "loop.png").symlink_to(data / "loop.png")
    os.mkfifo(data / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(data / "socket.png"))
        yield data


OUTSIDE = "outside the allowed folders"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("{top}/other/secret.png", OUTSIDE),
        ("../other/secret.png", OUTSIDE),
        ("inside/../../other/secret.png", OUTSIDE),
        ("to_secret.png", OUTSIDE),
        ("to_folder/secret.png", OUTSIDE),
        ("to_folder/../other/secret.png", OUTSIDE),
        ("file://{top}/other/secret.png", OUTSIDE),
        ("FILE://localhost{top}/other/secret.png", OUTSIDE),
        ("file://{top}/data/%2e%2e/other/secret.png", OUTSIDE),
        ("file://elsewhere{top}/data/a.png", "another machine"),
        ("file:{top}/data/a.png", "not fetched"),
        ("../data-2/a.png", OUTSIDE),
        ("/etc/passwd", OUTSIDE),
        ("/etc/nothing-of-that-name", OUTSIDE),
        ("/proc/self/environ", OUTSIDE),
        ("/dev/zero", OUTSIDE),
        ("/dev/stdin", OUTSIDE),
        ("/proc/self/root/etc/passwd", OUTSIDE),
        ("/proc/self/cwd/a.png", OUTSIDE),
        ("to_zero.png", OUTSIDE),
        ("to_environment.png", OUTSIDE),
        ("pipe.png", "not a regular file"),
        ("socket.png", "not a regular file"),
        ("inside", "not a regular file"),
        (".", "not a regular file"),
        ("loop.png", "not a regular file"),
        ("~/a.png", "cannot be read"),
        ("~root/a.png", "cannot be read"),
        ("a.png\0", "cannot be read"),
        ("\ud800.png", "cannot be read"),
        ("text.png", "not a png"),
        ("http://host/a.png", "not fetched"),
        ("gopher://host/a.png", "not fetched"),
    ],
)
def test_files_that_are_not_read(folders, tmp_path, cell, reason):
    cell = cell.format(top=tmp_path)
    for form in (cell, {"bytes": None, "path": cell}, {"path": cell}):
        with pytest.raises(UnusableCellError, match=reason) as raised:
            ImageStore(tmp_path / "images", folders).keep_all(form, "images")
        assert SECRET not in str(raised.value)
        assert SECRET[:4] not in str(raised.value)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    "cell", ["a.png", "{top}/data/a.png", "file://{top}/data/a.png", "to_inside.png", "./inside/../a.png"]
)
def test_files_of_the_folder_are_read(folders, tmp_path, cell):
    (image,) = ImageStore(tmp_path / "images", folders).keep_all(cell.format(top=tmp_path), "images")
    assert (tmp_path / image.path).exists()


@pytest.mark.parametrize(
    "name", ["a#b.png", "q?x.png", "photo-2024-01-01T12:30.png", "scan:1.png", "a;b.png", "A b.png", "\u00fc.png"]
)
def test_file_names_that_resemble_urls_are_read(folders, tmp_path, name):
    (folders / name).write_bytes(make_png(3))
    for cell in (
        name,
        f"./{name}",
        str(folders / name),
        f"file://{folders / name}",
        f"file://localhost{folders}/{name}",
    ):
        (image,) = ImageStore(tmp_path / "images", folders).keep_all(cell, "images")
        assert (tmp_path / image.path).read_bytes() == make_png(3)


@pytest.mark.parametrize("whole_folder", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_symlinked_image_folder_is_refused_naming_the_flag(load, tmp_path, whole_folder, exists):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "images").symlink_to("../big")
    if exists:
        (tmp_path / "big").mkdir()
        (tmp_path / "big" / "1.png").write_bytes(make_png(1))
    lines = tmp_path / "ds" / "train.jsonl"
    lines.write_text('{"prompt": "q", "answer": "1", "image": "images/1.png"}\n')
    dataset = str(lines.parent if whole_folder else lines)
    with pytest.raises(InputError, match=r"1 x image: image file is outside the allowed .*--image_folders") as raised:
        load(dataset)
    assert "big" not in str(raised.value)
    if exists:
        assert load(dataset, image_folders=(str(tmp_path / "big"),)).report.count == 1


@pytest.fixture
def snapshot(tmp_path):
    """Make a data set as in the hub's cache: links to files that are named by hashes."""
    repo = tmp_path / "datasets--x--y"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / "abc" / "images").mkdir(parents=True)
    (repo / "blobs" / "f0").write_bytes(make_png(1))
    (repo / "blobs" / "f1").write_text('{"prompt": "q", "answer": "1", "image": "images/1.png"}\n')
    (repo / "snapshots" / "abc" / "images" / "1.png").symlink_to("../../../blobs/f0")
    (repo / "snapshots" / "abc" / "train.jsonl").symlink_to("../../blobs/f1")
    return repo / "snapshots" / "abc"


@pytest.mark.parametrize("name", ["", "train.jsonl"])
def test_hub_snapshot_given_by_path_is_read(load, snapshot, name):
    assert load(str(snapshot / name)).report.count == 1


def test_snapshot_cannot_redirect_its_blobs_folder(load, snapshot, tmp_path):
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="outside the allowed folders"):
        load(str(snapshot))


def test_archives_of_other_data_sets_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.EXTRACTED_DATASETS_PATH", tmp_path / "extracted")
    environment = {}
    for name in ("a", "b"):
        (tmp_path / name / "inside").mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / name / "inside" / "images.zip", "w") as archive:
            archive.writestr("1.png", make_png(1))
        manager = ExtractManager(str(tmp_path))
        manager.extract_dir = str(tmp_path / "extracted")
        environment[name] = Path(manager.extract(str(tmp_path / name / "inside" / "images.zip")))
    assert environment["a"] != environment["b"]
    for name, folder in environment.items():
        assert (folder / "1.png").is_file()
        assert unpacked_folders(tmp_path / name) == [folder]
    assert unpacked_folders(tmp_path / "a" / "nothing") == []


def test_further_folders(folders, tmp_path):
    store = ImageStore(tmp_path / "images", folders, [tmp_path / "other"])
    for cell in (str(tmp_path / "other" / "secret.png"), "to_secret.png", "../other/secret.png", "secret.png"):
        (image,) = store.keep_all(cell, "images")
        assert (tmp_path / image.path).read_bytes() == make_png(9)
    with pytest.raises(UnusableCellError, match=OUTSIDE):
        store.keep_all(str(tmp_path / "secret.txt"), "images")


def test_data_set_without_a_folder_reads_image_folders_only(folders, tmp_path):
    with pytest.raises(UnusableCellError, match="--image_folders"):
        ImageStore(tmp_path / "images", None).keep_all(str(folders / "a.png"), "images")
    (image,) = ImageStore(tmp_path / "images", None, [folders]).keep_all("a.png", "images")
    assert image.media_type == "image/png"


def test_a_folder_that_is_itself_reached_by_a_link(folders, tmp_path):
    (tmp_path / "link").symlink_to(folders)
    assert read_confined("a.png", [tmp_path / "link"], limit=1000) == make_png(1)
    assert read_confined(str(folders / "a.png"), [tmp_path / "link"], limit=1000) == make_png(1)


def test_growing_file_is_read_up_to_the_limit(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(11))
    assert len(read_confined("a", [tmp_path], limit=11)) == 11
    with pytest.raises(ConfinedFileError, match=r"too large.*more than 10 bytes"):
        read_confined("a", [tmp_path], limit=10)
    original = os.fstat

    def grown(file):
        status = original(file)
        with (tmp_path / "a").open("ab") as more:
            more.write(bytes(1000))
        return status

    monkeypatch.setattr(confined.os, "fstat", grown)
    with pytest.raises(ConfinedFileError, match="too large"):
        read_confined("a", [tmp_path], limit=11)


def test_named_pipe_in_place_of_a_file_does_not_block(tmp_path, monkeypatch):
    """The file is replaced between the check and the opening."""
    (tmp_path / "a").write_bytes(b"x")
    original = os.open

    def swapped(path, flags, *more):
        Path(path).unlink()
        os.mkfifo(path)
        return original(path, flags, *more)

    monkeypatch.setattr(confined.os, "open", swapped)
    with pytest.raises(ConfinedFileError, match="not a regular file"):
        read_confined("a", [tmp_path], limit=10)


@given(name=st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "a", "to_top", "/", "file://"])).map("/".join))
def test_path_stays_inside_the_folder_for_any_name(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "confined"
    (folder / "a").mkdir(parents=True, exist_ok=True)
    if not (folder / "a" / "to_top").is_symlink():
        (folder / "a" / "to_top").symlink_to("/")
    try:
        path = confined_path(name, [folder])
    except ConfinedFileError:
        return
    assert path == path.resolve()
    assert path.is_relative_to(folder.resolve())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    Pictures.new("RGB", (64, 64)).save(file, "JPEG")
    return file.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_of_scans(count: int) -> bytes:
    """Return a progressive JPEG of 8 x 8 pixels whose second scan is repeated many times."""
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0")
    tables += b"".join(segment(0xC4, bytes([kind, 1]) + bytes(16)) for kind in (0x00, 0x10))
    scans = segment(0xDA, b"\1\1\0\0\0\0") + b"\x7f" + (segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x7f") * (count - 1)
    return b"\xff\xd8" + tables + scans + b"\xff\xd9"


def tiff_of_a_tile(side: int) -> bytes:
    """Return a grey TIFF of 16 x 16 pixels in one compressed tile."""
    data = zlib.compress(bytes(side * side), 1)
    tags = {
        256: 16,
        257: 16,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: side,
        323: side,
        324: 8 + 2 + 120 + 4,
        325: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_scans_are_counted_where_the_decoder_finds_them():
    assert images.check_picture(jpeg_of_scans(200), "image/jpeg") is None
    other = segment(0xE2, b"\xff\xda" * 300)
    inside = jpeg()[:2] + other + jpeg()[2:]
    for content in (inside, jpeg() + b"\xff\xda" * 300, jpeg()):
        assert images.check_picture(content, "image/jpeg") is None
    hidden = b"\xff\xd8" + other + b"garbage\xff\xff" + jpeg_of_scans(201)[3:]
    assert images.check_picture(hidden, "image/jpeg") == "image has more than 200 scans"


def test_small_pictures_may_have_usual_tiles():
    assert images.check_picture(tiff_of_a_tile(512), "image/tiff") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg_of_scans(201), "more than 200 scans"),
        (tiff_of_a_tile(8192), "far larger than it is"),
        (png(60_000, 60_000, zlib.compress(b"")), "more than 89,478,485 pixels"),
        (png(9_500, 9_500, zlib.compress(b"")), "more than 89,478,485 pixels"),
        (png(2**31 - 1, 2**31 - 1, b""), "pixels"),
        (png(4, 4, b"no zlib"), "cannot be decoded"),
        (png(4, 4, zlib.compress(bytes(3))), "cannot be decoded"),
        (png(0, 0, zlib.compress(b"")), "cannot be decoded"),
        (make_png(1)[:30], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (b"\xff\xd8\xff\xe0", "cannot be decoded"),
        (jpeg()[:-300], "cannot be decoded"),
        (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20), "pixels|cannot be decoded"),
        (b"BM" + bytes(60), "cannot be decoded"),
        (b"II*\x00\xff\xff\xff\xff", "cannot be decoded"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "cannot be decoded"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_do_not_decode_or_are_bombs(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    for cell in (content, "a.png", url, {"bytes": content, "path": "a.png"}):
        with pytest.raises(UnusableCellError, match=reason):
            ImageStore(tmp_path / "images", tmp_path).keep_all(cell, "images")
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_of_every_kind_are_kept(tmp_path, kind, mode):
    file = io.BytesIO()
    Pictures.new(mode, (33, 7), 5 if mode == "L" else (1, 2, 3)).save(file, kind)
    (image,) = ImageStore(tmp_path / "images", None).keep_all(file.getvalue(), "images")
    assert image.media_type == f"image/{kind}"


def test_too_large_images_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST_IMAGE", 50)
    monkeypatch.setattr(images, "_LONGEST_DATA_URL", 150)
    (tmp_path / "a.png").write_bytes(make_png(1))
    url = f"data:image/png;base64,{base64.b64encode(make_png(1)).decode()}"
    for cell in (make_png(1), "a.png", url, "data:," + "x" * 200):
        with pytest.raises(UnusableCellError, match=r"more than 50 bytes|not a png"):
            ImageStore(tmp_path / "images", tmp_path).keep_all(cell, "images")


def test_quarantine_shows_nothing_of_files_that_rows_name(load, write_lines, tmp_path):
    (tmp_path / "inside.txt").write_text(SECRET)
    outside = tmp_path.parent / f"{tmp_path.name}-outside.txt"
    outside.write_text(SECRET)
    cells = ["inside.txt", str(outside), f"../{outside.name}", outside.as_uri(), {"path": str(outside)}, "/etc/passwd"]
    loaded = load(write_lines({"prompt": "q", "answer": 1}, *({"prompt": "q", "answer": 1, "image": c} for c in cells)))
    assert (loaded.report.count, loaded.report.quarantined) == (1, len(cells))
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert SECRET.encode()[:6] not in written
    assert b"root:" not in written
    assert {"images", "image"}.isdisjoint(loaded.problems[0].fields)


@pytest.mark.parametrize("whole_folder", [False, True])
def test_parquet_that_names_files(load, tmp_path, whole_folder):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, Value

    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(make_png(1))
    (tmp_path / "secret.png").write_bytes(make_png(9))
    cells = [
        {"bytes": None, "path": str(tmp_path / "secret.png")},
        {"bytes": None, "path": "../secret.png"},
        {"bytes": None, "path": "a.png"},
        {"bytes": make_png(2), "path": "/x"},
    ]
    features = Features({"prompt": Value("string"), "answer": Value("int64"), "image": Image()})
    rows = {"prompt": ["a", "b", "c", "d"], "answer": [1, 2, 3, 4], "image": cells}
    pq.write_table(pa.table(rows, schema=features.arrow_schema), folder / "data.parquet")
    loaded = load(str(folder if whole_folder else folder / "data.parquet"))
    assert [problem.prompt for problem in loaded.problems] == ["c", "d"]
    assert all("outside the allowed folders" in row["reason"] for row in loaded.quarantine)


def test_a_folder_of_pictures(load, tmp_path):
    """`datasets` returns absolute paths of the folder's own files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(make_png(number))
    lines = [f'{{"file_name": "{number}.png", "prompt": "q{number}", "answer": 1}}\n' for number in range(2)]
    (folder / "metadata.jsonl").write_text("".join(lines))
    loaded = load(str(folder))
    assert [len(problem.images) for problem in loaded.problems] == [1, 1]


@pytest.mark.parametrize("named", ["../secret.jsonl", "{0}/secret.jsonl", "{0}/*.jsonl"])
def test_a_folder_whose_card_names_data_files_elsewhere_is_refused(load, tmp_path, named):
    (tmp_path / "secret.jsonl").write_text(f'{{"prompt": "{SECRET}", "answer": 1}}\n')
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {named.format(tmp_path)}\n---\n"
    )
    with pytest.raises(InputError, match=r"README\.md names .* outside of it"):
        load(str(folder))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "/dev/zero"}},
        {"type": "image_url", "image_url": "http://192.0.2.1/a.png"},
        {"type": "input_image", "image_url": "file:///etc/passwd"},
        {"type": "file", "file": {"file_data": "/etc/passwd"}},
        {"type": "image", "image": "/etc/passwd"},
        {"type": "image", "path": "/dev/zero", "url": "file:///etc/passwd"},
    ],
)
def test_message_parts_cannot_read_other_files(load, write_lines, part):
    content = [part, {"type": "text", "text": "q"}]
    fine = {"prompt": "q", "answer": 1}
    loaded = load(write_lines(fine, {"prompt": [{"role": "user", "content": content}], "answer": 1}))
    assert b"root:" not in loaded.report.path.read_bytes()
    sent = orjson.dumps([build_messages(problem, Prompting()) for problem in loaded.problems])
    assert b"passwd" not in sent
    assert b"/dev" not in sent
    assert b"192.0.2.1" not in sent


def test_image_folders_are_used_and_must_exist(load, write_lines, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(make_png(1))
    (tmp_path / "data").mkdir()
    path = write_lines({"prompt": "q", "answer": 1, "image": str(tmp_path / "pictures" / "a.png")}, name="data/d.jsonl")
    with pytest.raises(InputError, match="outside the allowed folders"):
        load(path)
    assert load(path, image_folders=(str(tmp_path / "pictures"),)).report.count == 1
    with pytest.raises(InputError, match=r"--image_folders .*nowhere.*no such folder"):
        load(path, image_folders=(str(tmp_path / "nowhere"),))


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "images/link.png", "images/pipe.png"])
def test_a_run_whose_problems_were_changed_sends_no_other_files(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(make_png(9))
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "run" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "run" / "images" / "pipe.png")
    part = {"type": "image", "image": name, "media_type": "image/png"}
    with pytest.raises(InputError, match="cannot read the image"):
        to_openai([{"role": "user", "content": [part]}], tmp_path / "run")


def test_threads_store_images_concurrently(tmp_path):
    store = ImageStore(tmp_path / "images", None)
    kept = []
    threads = [threading.Thread(target=lambda n=n: kept.append(store.keep_all(make_png(n), "i"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({image.sha256 for (image,) in kept}) == 8
