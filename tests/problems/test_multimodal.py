"""Every image of a row is shown or refused, in any column or message."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.files.rows import dump_line
from rollmill.problems import ProblemSource, Prompting, build_messages, load_problems, read_problems
from tests.problems.conftest import make_png


def data_url(shade: int) -> str:
    return "data:image/png;base64," + base64.b64encode(make_png(shade)).decode()


FORMS = {
    "images": lambda urls: {"question": "q", "images": urls},
    "Image": lambda urls: {"question": "q", "Image": urls},
    "decoded_image": lambda urls: {"question": "q", "image": urls and "gone/1.png", "decoded_image": urls},
    "by its content": lambda urls: {"question": "q", "photo": urls, "link": "https://x/y.png"},
    "numbered": lambda urls: {"question": "q", **{f"image_{n}": url for n, url in enumerate(urls, 1)}, "image_9": None},
    "openai": lambda urls: {"messages": turns([{"type": "image_url", "image_url": {"url": url}} for url in urls])},
    "qwen": lambda urls: {"messages": turns([{"type": "image", "image": url} for url in urls])},
    "two turns": lambda urls: {"messages": [*turns([]), *turns([{"type": "image", "image": url} for url in urls])]},
    "trl": lambda urls: {"prompt": turns([{"type": "image"} for _ in urls]), "images": urls},
    "both": lambda urls: {"prompt": turns([{"type": "image", "image": url} for url in urls]), "images": urls},
    "beside": lambda urls: {"prompt": turns([{"type": "image", "image": urls[0]}] if urls else []), "images": urls[1:]},
}


def turns(parts: list) -> list:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "q"}]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("multimodal")


def load(folder, rows, **options):
    (folder / "rows.jsonl").write_bytes(b"".join(dump_line({"answer": 1, **row}) for row in rows))
    report = load_problems(ProblemSource(dataset=str(folder / "rows.jsonl"), **options), folder / "run")
    return report, list(read_problems(report.path))


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(sorted(FORMS)),
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    at=st.integers(0, 30),
)
def test_every_image_of_every_row_is_shown_once(folder, form, counts, at):
    without = [FORMS[form]([]) for _ in range(at)]  # the first images may stand behind the rows that are looked at
    rows = [FORMS[form]([data_url(shade + 1) for shade in range(count)]) for count in counts]
    _, problems = load(folder, [*without, *rows])
    for problem, count in zip(problems, [0] * at + counts, strict=True):
        sent = build_messages(problem, Prompting())
        parts = [part for turn in sent if isinstance(turn["content"], list) for part in turn["content"]]
        shown = [(folder / "run" / part["image"]).read_bytes() for part in parts if part["type"] == "image"]
        assert shown == [make_png(shade + 1) for shade in range(count)]


@pytest.mark.parametrize(
    ("form", "column"), [("Image", "Image"), ("qwen", "messages"), ("numbered", "image_1, image_2")]
)
def test_fields_name_the_columns_of_images(folder, form, column):
    report, _ = load(folder, [FORMS[form]([])] * 25 + [FORMS[form]([data_url(1), data_url(2)])])
    assert report.fields["images"] == column


def test_rows_with_images_in_different_columns_show_their_own(folder):
    _, (first, second) = load(
        folder, [{"question": "q", "image": data_url(1)}, {"question": "q", "images": [data_url(2)]}]
    )
    assert [len(first.images), len(second.images)] == [1, 1]


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        ({"prompt": turns([{"type": "image"}])}, {}, "shows an image that is nowhere in the row"),
        ({"prompt": turns([{"type": "image"}] * 2), "images": [data_url(1)]}, {}, "shows an image that is nowhere"),
        ({"prompt": turns([{"type": "image", "image": "no.png"}])}, {}, "image file cannot be read"),
        ({"prompt": turns([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}])}, {}, "are not fetched"),
        (
            {"prompt": turns([{"type": "image", "image": data_url(1)}])},
            {"image_field": ""},
            "holds images where only text is read",
        ),
        ({"prompt": "q", "photo": data_url(1), "mask": data_url(2)}, {}, "is one of several columns of images"),
        ({"prompt": turns([{"type": "video", "video": "v"}])}, {}, "neither text nor image"),
    ],
)
def test_an_image_that_cannot_be_shown_refuses_its_row(folder, row, options, reason):
    report, _ = load(folder, [{"prompt": "q"}, row], max_bad_share=0.5, **options)
    assert reason in " ".join(report.reasons)


def test_named_image_column_may_appear_late_but_must_appear(folder):
    rows = [{"question": "q"}] * 25
    _, problems = load(folder, [*rows, {"question": "q", "picture": data_url(1)}], image_field="picture")
    assert len(problems[25].images) == 1
    with pytest.raises(InputError, match=r"no column 'picture' \(--image_field\) in any of the 25 rows"):
        load(folder, rows, image_field="picture")
