import base64
from pathlib import Path

import pytest

from rollmill.problems.cells import UnusableCellError
from rollmill.problems.images import ImageStore, media_type
from tests.problems.conftest import make_png

PNG = make_png(1)
OTHER = make_png(2)


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF\x01\x02\x03\x04WEBPVP8 ", "image/webp"),
        (b"BM\x01\x02\x03\x04\x00\x00\x00\x00", "image/bmp"),
        (b"II*\x00....", "image/tiff"),
        (b"MM\x00*....", "image/tiff"),
        (b"BMW is a car", None),
        (b"RIFF....WAVE", None),
        (b"<svg/>", None),
        (b"", None),
    ],
)
def test_media_type_comes_from_the_bytes(begin, kind):
    assert media_type(begin) == kind


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    (tmp_path / "a.jpg").write_bytes(PNG)  # the name lies
    return ImageStore(tmp_path / "images", tmp_path)


@pytest.mark.parametrize(
    "cell",
    [
        PNG,
        bytearray(PNG),
        {"bytes": PNG, "path": None},
        {"bytes": None, "path": "a.jpg"},
        "a.jpg",
        "./a.jpg",
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        base64.b64encode(PNG).decode(),
        base64.encodebytes(PNG).decode(),
        [PNG],
    ],
)
def test_every_form_of_an_image(store, tmp_path, cell):
    (image,) = store.keep_all(cell, "images")
    assert image.media_type == "image/png"
    assert image.path == f"images/{image.sha256}.png"
    assert (tmp_path / image.path).read_bytes() == PNG


def test_absolute_path_and_file_url(store, tmp_path):
    first, second = store.keep_all([str(tmp_path / "a.jpg"), (tmp_path / "a.jpg").as_uri()], "images")
    assert first == second


def test_order_is_kept_and_the_same_bytes_are_written_once(store, tmp_path):
    images = store.keep_all([PNG, OTHER, {"bytes": PNG}], "images")
    assert [(tmp_path / image.path).read_bytes() for image in images] == [PNG, OTHER, PNG]
    assert len(list((tmp_path / "images").iterdir())) == 2


@pytest.mark.parametrize("cell", [None, []])
def test_no_images(store, cell):
    assert store.keep_all(cell, "images") == ()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("http://host/a.png", "URLs are not fetched"),
        ("https://host/a.png", "URLs are not fetched"),
        ("s3://bucket/a.png", "URLs are not fetched"),
        ("missing.png", "cannot be read.*missing.png.*No such file"),
        ("x" * 5000, "cannot be read"),
        ("nul\0", "cannot be read"),
        (b"<svg/>", "not a png"),
        ("data:image/png;base64,%%%", "not a data URL"),
        ("data:image/png", "not a data URL"),
        ("data:image/png;base64,aGVsbG8=", "not a png"),
        (7, "expected an image"),
        ("", "expected an image"),
        ({"bytes": None, "path": None}, "expected an image"),
        ([PNG, None], "expected an image"),
    ],
)
def test_images_that_cannot_be_used(store, cell, reason):
    with pytest.raises(UnusableCellError, match=reason):
        store.keep_all(cell, "images")


def test_relative_path_without_a_folder(tmp_path):
    with pytest.raises(UnusableCellError, match="no folder to start from"):
        ImageStore(tmp_path, None).keep_all("a.png", "images")
