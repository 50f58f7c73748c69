"""The cases of the C problems show mistakes: answers are compared here without the grader and its sandboxes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.examples.problem_cases import FOLDER, ROWS, copy_image, print_cases, replace_text

C = [instance_id for instance_id, row in ROWS.items() if row["path_in_repo"].endswith(".c")]

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("make")), reason="needs gcc and make")


def worker(instance_id: str, folder: Path, solution: str = "") -> Path:
    """Build the worker of a problem in a copy of the image, with one of the solutions if it is named."""
    return build(copy_image(instance_id, folder, solution))


def build(folder: Path) -> Path:
    """Build the worker of a problem's files."""
    subprocess.run(["make", "-s", "build/worker"], cwd=folder, check=True)
    return folder / "build/worker"


def answers(program: Path, cases: str) -> list[str]:
    """Return what a worker answers, up to its end, which may be early."""
    process = subprocess.run(
        [program, "--time"], input=cases, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return process.stdout.splitlines()


class Mistake(NamedTuple):
    """Code that is fast, and nearly right: the good patch with something replaced, or added behind a line."""

    instance_id: str
    what: str
    file: str
    old: str
    new: str

    def copy(self, folder: Path) -> Path:
        """Copy the image with the good patch and the mistake."""
        copy_image(self.instance_id, folder, "good")
        replace_text(folder / self.file, self.old, self.new)
        return folder


MATKIT, TEXTNORM, ARMOR = "matkit__multiply", "textnorm__passes", "armor__codec"
GREYMAP, WORDTAB = "greymap__blur", "wordtab__table"
MEAN = "row[x] = (uint8_t)((2 * sum + count) / (2 * count));"
SUM = "sums[column] += factor * values[column];"
NEW_PRODUCT = "    matrix *product = matkit_new(left->rows, right->columns);\n"
MISTAKES = [
    Mistake(MATKIT, "skips zeros", "src/multiply.c", SUM, f"if (factor != 0) {SUM}"),
    Mistake(MATKIT, "loses a sign of zero", "src/multiply.c", SUM,
            "sums[column] = inner ? sums[column] + factor * values[column] : factor * values[column];"),
    Mistake(MATKIT, "reads behind the last row", "src/multiply.c", SUM,
            f"{SUM}\n            (void)((const volatile double *)values)[right->columns];"),
    Mistake(MATKIT, "flushes the smallest numbers", "src/multiply.c", "sums[column] +=",
            "if (__builtin_fabs(factor * values[column]) > 1e-300) sums[column] +="),
    Mistake(MATKIT, "keeps a product by its arguments' addresses", "src/multiply.c", NEW_PRODUCT,
            "    static const matrix *last, *other;\n"
            f"    static double first;\n{NEW_PRODUCT}"
            "    if (last == left && other == right && product && left->rows && right->columns)\n"
            "        return product->values[0] = first, product;\n"
            "    last = left, other = right, first = 0;\n"),
    Mistake(TEXTNORM, "looks in front of the text", "src/textnorm.c", "to > text && to[-1] != ' '", "to[-1] != ' '"),
    Mistake(TEXTNORM, "takes all blanks of C", "src/textnorm.c", "c == '\\r'", "c == '\\r' || c == '\\v'"),
    Mistake(TEXTNORM, "uses few of the unwanted", "src/textnorm.c", "for (; *unwanted; unwanted++)",
            "for (int i = 0; i < 16 && *unwanted; i++, unwanted++)"),
    Mistake(TEXTNORM, "writes behind the NUL", "src/textnorm.c", "    *to = '\\0';", "    to[0] = to[1] = '\\0';"),
    Mistake(TEXTNORM, "returns the end", "src/textnorm.c", "    *to = '\\0';\n    return text;",
            "    *to = '\\0';\n    return to;"),
    Mistake(ARMOR, "takes padding that is missing", "lib/decode.c", "letters + padding != 4",
            "padding && letters + padding != 4"),
    Mistake(ARMOR, "writes a size without a result", "lib/decode.c", "    buffer_drop",
            "    *size = 0;\n    buffer_drop"),
    Mistake(ARMOR, "reads behind the text", "lib/decode.c", "        const char *place;",
            "        const char *place;\n        (void)((const volatile char *)text)[i + 1];"),
    Mistake(ARMOR, "cuts the width to 16 bits", "lib/encode.c", "++column == width", "++column == (width & 65535)"),
    Mistake(ARMOR, "keeps a refusal by the text's address", "lib/decode.c", "    buffer_init(&bytes);\n",
            "    static const char *last;\n    static size_t size_of_last;\n"
            "    if (last == text && size_of_last == length && length > 3)\n        return NULL;\n"
            "    last = text, size_of_last = length;\n    buffer_init(&bytes);\n"),
    Mistake(GREYMAP, "rounds with a float", "src/filters.c", MEAN,
            "row[x] = (uint8_t)((float)sum * (1.0f / (float)count) + 0.5f);"),
    Mistake(GREYMAP, "limits the radius", "src/filters.c", "    greymap *blurred =",
            "    radius = radius > 16 ? 16 : radius;\n    greymap *blurred ="),
    Mistake(GREYMAP, "changes its argument", "src/filters.c", "    free(sums);\n    return blurred;",
            "    free(sums);\n    image->pixels[0] = blurred->pixels[0];\n    return blurred;"),
    Mistake(GREYMAP, "reads behind the last pixel", "src/filters.c", "sums[x] += sign * row[x];",
            "sums[x] += sign * row[x] + 0 * ((const volatile uint8_t *)row)[x + 1];"),
    Mistake(WORDTAB, "uses the first bytes only", "src/table.c", "memcmp(e->key, key, length) == 0;\n}",
            "memcmp(e->key, key, length < 24 ? length : 24) == 0;\n}\n"
            "#define hash_of(key, length) hash_of(key, (length) < 24 ? (length) : 24)"),
    Mistake(WORDTAB, "has a hash that adds 33 times", "src/table.c",
            "memcmp(e->key, key, length) == 0;\n}",
            "1;\n}\n#define hash_of(key, length) djb2(key, length)\n"
            "static size_t djb2(const char *key, size_t length)\n"
            "{\n    size_t hash = 5381;\n    while (length-- > 0)\n        hash = hash * 33 + (unsigned char)*key++;\n"
            "    return hash;\n}"),
    Mistake(WORDTAB, "compares hashes of 64 bits only", "src/table.c", "memcmp(e->key, key, length) == 0;", "1;"),
    Mistake(WORDTAB, "counts in an int", "src/table.c", "    long count;\n    char key[];",
            "    int count;\n    char key[];"),
    Mistake(WORDTAB, "forgets keys that are down to 0", "src/table.c", "return (*place)->count += amount;",
            "return ((*place)->count += amount) != 0 ? (*place)->count : 0L * table_remove(t, key, length);"),
]  # fmt: skip


@cache
def edge_cases(instance_id: str) -> str:
    return print_cases(instance_id, "edge", "7")


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[str]]]:
    """The answers of the present code to the edge cases."""

    @cache
    def ask(instance_id: str) -> list[str]:
        program = worker(instance_id, tmp_path_factory.mktemp("present") / "tree")
        return answers(program, edge_cases(instance_id))

    yield ask
    ask.cache_clear()


@pytest.mark.slow  # makes large inputs three times
@pytest.mark.parametrize("instance_id", C)
@pytest.mark.parametrize("part", ["edge", "speed"])
def test_inputs_follow_from_the_seed(instance_id: str, part: str) -> None:
    first = print_cases(instance_id, part, "one")
    assert print_cases(instance_id, part, "one") == first
    assert not set(print_cases(instance_id, part, "two").splitlines()[-6:]) & set(first.splitlines())
    assert first.isascii()


def test_all_images_have_the_same_protocol() -> None:
    texts = {path.read_text() for path in FOLDER.glob("images/*/*/protocol.h")}
    assert len(texts) == 1


@pytest.mark.slow  # builds a program
@pytest.mark.parametrize("instance_id", C)
def test_the_good_patch_answers_like_the_present_code(
    instance_id: str, present: Callable[[str], list[str]], tmp_path: Path
) -> None:
    program = worker(instance_id, tmp_path / "tree", "good")
    assert answers(program, edge_cases(instance_id)) == present(instance_id)
    assert len(present(instance_id)) == len(edge_cases(instance_id).splitlines()) > 150


@pytest.mark.slow  # builds a program
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.instance_id}-{mistake.what}")
def test_edge_cases_show_mistakes(mistake: Mistake, present: Callable[[str], list[str]], tmp_path: Path) -> None:
    program = build(mistake.copy(tmp_path / "tree"))
    assert answers(program, edge_cases(mistake.instance_id)) != present(mistake.instance_id)


@pytest.mark.slow  # builds a program
def test_a_worker_calls_the_code_only_when_told(tmp_path: Path) -> None:
    program = worker(TEXTNORM, tmp_path / "tree")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("end 0 4120 go fold 0 0\n")
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        assert process.stdout.readline() == "done\n"
        assert process.stdout.readline() == "fold returns 0: 6120 | whole \n"
        process.stdin.close()
        assert process.wait() == 0
