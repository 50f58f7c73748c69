import subprocess
import sys

import pytest
import yaml

from rollmill.agents.config import read_agent_config
from rollmill.config.settings_file import read_settings_file
from rollmill.errors import InputError
from rollmill.files.bounded_yaml import BadYamlError, read_yaml
from rollmill.jobs.episodes.override_values import read_value

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(['*a' + str(n - 1)] * 10)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join(['*a' + str(n - 1)] * 10)}]\n" for n in range(1, 10)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
HOSTILE = {
    "code": "a: !!python/object/apply:os.system ['touch pwned']",
    "name": "a: !!python/name:os.system ''",
    "new": "!!python/object/new:type [z, [], {a: !!python/name:eval ''}]",
    "module": "a: !!python/module:os ''",
    "laughs": LAUGHS,
    "merges": MERGES,
    "chain": CHAIN,
    "itself": "a: &a [*a]",
    "itself as a key": "&a {? *a : 1}",
    "brackets": "a: " + "[" * 100_000,
    "braces": "a: " + "{a: " * 20_000,
    "indents": "".join(" " * n + "a:\n" for n in range(900)),
    "sequences": "- " * 100_000,
    "long": "a: " + "x" * 1_000_001,
    "bytes": b"\xff\xfe\x00",
    "number": "a: " + "9" * 5000,
    "hexadecimal": "a: 0x" + "f" * 9000,
    "hexadecimal beyond floats": "a: 0x" + "f" * 290,
    "binary": "a: 0b" + "1" * 900_000,
    "octal as a key": "? 0" + "7" * 9000 + "\n: 1",
    "sexagesimal": "a: 1" + ":1" * 100_000,
    "sexagesimal float": "a: 1" + ":1" * 100_000 + ".0",
    "float": "a: 1." + "1" * 900_000,
    "quoted number": "a: !!int '" + "9" * 5000 + "'",
    "no number": "a: !!int ''",
    "no float": "a: !!float _",
    "no truth": "a: !!bool x",
    "no time": "a: !!timestamp x",
    "date": "a: 2020-99-99",
    "two": "a: 1\n---\na: 2\n",
}
WALK = """
import resource, sys
from rollmill.errors import InputError
from rollmill.config.settings_file import read_settings_file
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    read_settings_file(sys.argv[1])
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadYamlError) as refused:
        read_yaml(HOSTILE[name])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [read_settings_file, read_agent_config])
def test_every_file_of_settings_is_read_so(tmp_path, read, name):
    file = tmp_path / "theirs.yaml"
    file.write_bytes(text if isinstance(text := HOSTILE[name], bytes) else text.encode())
    with pytest.raises(InputError) as refused:
        read(str(file))
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["laughs", "merges", "chain"])
def test_aliases_take_neither_time_nor_memory(tmp_path, name):
    file = tmp_path / "theirs.yaml"
    file.write_text(HOSTILE[name])
    done = subprocess.run([sys.executable, "-c", WALK, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "with its aliases expanded it is larger than the limit" in done.stderr


def test_long_number_is_reported_with_its_line(tmp_path):
    file = tmp_path / "theirs.yaml"
    file.write_text("a: 1\ntemperature: 0x" + "f" * 9000)
    with pytest.raises(InputError) as refused:
        read_settings_file(str(file))
    assert str(refused.value).startswith(f"{file} line 2: 0xffff")


def test_deep_json_is_one_line(tmp_path):
    file = tmp_path / "theirs.json"
    file.write_text('{"a":' * 900 + "1" + "}" * 900)
    with pytest.raises(InputError, match="it nests more than 50 levels deep"):
        read_settings_file(str(file))


@pytest.mark.parametrize("text", ["[" * 100_000, "!!python/name:os.system ''", "[" * 2000 + "]" * 2000])
def test_a_flags_value_is_read_so(text):
    with pytest.raises(ValueError, match="is no YAML value"):
        read_value(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "- &x {a: [1, 2.5, null, true]}\n- <<: *x\n  b: 2020-01-01\n",
        "text",
        "a: |\n  b\n  c\n",
        "[0x1F, 0b11, 017, 1:30, -1_000, 1:30.5, .inf, 1.5e+3, " + "9" * 299 + "]",
    ],
)
def test_plain_values_equal_those_of_pyyaml(text):
    assert read_yaml(text).value == yaml.safe_load(text)


def test_mistake_is_reported_with_its_line():
    with pytest.raises(BadYamlError) as refused:
        read_yaml("a: 1\nb: [\n")
    assert refused.value.line == 3
