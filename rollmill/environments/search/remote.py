"""Client of search services with the protocol of Search-R1's retrieval servers (`/retrieve`)."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from rollmill.environments.search.corpus import split_contents
from rollmill.environments.tools import Document
from rollmill.errors import ServingError
from rollmill.inference.http_service import CallFailedError, ServiceConnection
from rollmill.verifiers.answer_tag import encodable

TOKEN_VARIABLE = "ROLLMILL_SEARCH_TOKEN"  # noqa: S105 - a name
"""Environment variable with the search service's token."""

_PATIENCE_S = 600.0
"""Seconds after which retries end."""


class RemoteSearcher:
    """Client of the search service at `host:port` or a URL; thread-safe.

    The protocol is that of `search_r1/search/retrieval_server.py` in PeterGriffinJin/Search-R1: `{"queries": [str],
    "topk": int, "return_scores": true}` is answered by `{"result": [[{"document": {"id", "contents"}, "score"}]]}`.
    `title` and `text` instead of `contents` are accepted, too, and documents without scores.

    Args:
        address: `host:port` or a URL.
        token: Bearer token of the service.
        timeout_s: Time limit of one request, in seconds.
        max_retries: Maximum number of retries of a request after connection failures and 5xx.
    """

    def __init__(
        self, address: str, *, token: SecretStr | None = None, timeout_s: float = 60.0, max_retries: int = 5
    ) -> None:
        self._connection = ServiceConnection(address, token)
        self._timeout_s = timeout_s
        self._max_retries = max_retries

    def search(self, query: str, top_k: int) -> list[Document]:
        """Search; see `Searcher`. Raises `ServingError` if the service is unavailable or its answer is malformed."""
        query = encodable(query.strip())
        if not query or top_k < 1:
            return []
        try:
            answer = self._connection.post_again(
                "/retrieve",
                {"queries": [query], "topk": top_k, "return_scores": True},
                timeout_s=self._timeout_s,
                retries=self._max_retries,
                retry_if=lambda failure: failure.passing and failure.type != "malformed_answer",
                patience_s=_PATIENCE_S,
            )
        except CallFailedError as failure:
            hint = f": set {TOKEN_VARIABLE} to its token" if failure.status in {401, 403} else ""
            raise ServingError(f"{failure}{hint}") from failure
        try:
            (results,) = answer["result"]
            if not isinstance(results, list):
                raise TypeError("the documents must be a list")
            return [_document(item, rank) for rank, item in enumerate(results[:top_k], start=1)]
        except (KeyError, TypeError, ValueError) as error:
            raise ServingError(
                f"{self._connection.url}/retrieve answers something else than one list of documents: {error!r}"
            ) from error

    def close(self) -> None:
        """Close the connections; pending retries are cancelled."""
        self._connection.close()


def _document(item: Any, rank: int) -> Document:
    """Parse a document. Raises `KeyError`, `TypeError` or `ValueError` for a malformed one."""
    if not isinstance(item, dict) or not isinstance(document := item.get("document", item), dict):
        raise TypeError("a document must be an object")
    title, text = document.get("title") or "", document.get("text", document.get("contents"))
    if not isinstance(title, str) or not isinstance(text, str):
        raise TypeError("a document's title and text must be texts")
    if "text" not in document and not title:
        title, text = split_contents(text)
    # If the service has no ids, the text identifies the document.
    return Document(str(document.get("id", text)), title, text, float(item.get("score", -rank)))
