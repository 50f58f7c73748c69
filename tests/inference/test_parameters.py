import pytest

from rollmill.inference.endpoints import Endpoint
from rollmill.inference.parameters import check_urls


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:8000", "http://h:8000/v1/chat/completions"),
        ("http://h:8000/", "http://h:8000/v1/chat/completions"),
        ("http://h:8000/v1/", "http://h:8000/v1/chat/completions"),
        ("http://h/llm", "http://h/llm/v1/chat/completions"),
        ("http://h/llm/v1", "http://h/llm/v1/chat/completions"),
        ("https://g/v1beta/openai/", "https://g/v1beta/openai/chat/completions"),
        ("https://z/api/paas/v4", "https://z/api/paas/v4/chat/completions"),
        (
            "https://r.azure/openai/deployments/d?api-version=2024-10-21",
            "https://r.azure/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://r.azure/openai/v1?api-version=preview",
            "https://r.azure/openai/v1/chat/completions?api-version=preview",
        ),
        ("https://p/chat/completions", "https://p/chat/completions"),
    ],
)
def test_base_urls_are_normalized(url, address):
    assert Endpoint(check_urls([url])[0]).chat_url == address


@pytest.mark.parametrize(
    "url", ["h:8000", "ftp://h", "http://", "http://h:x/v1", "http://h:99999/v1", "http://u:canary@h/v1", "http://h/v1#a",
            "https://h/v1?key=canary", "https://h/v1?api_key=canary",
            "https://h/v1?subscription-key=canary", "https://h/v1?code=canary"]
)  # fmt: skip
def test_what_is_no_address_is_refused_without_showing_secrets(url):
    with pytest.raises(ValueError, match="http") as raised:
        check_urls([url])
    assert "canary" not in str(raised.value)
