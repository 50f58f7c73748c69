"""Settings of the search environment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rollmill.environments.paths import PathText


class SearchSettings(BaseModel):
    """Settings of the search environment: the corpus, and limits on searches and prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: PathText = ""
    """A folder of `.txt` and `.md` files, or a data file whose rows have `id`, `title` and `text` (or `contents`);
    empty for the built-in corpus. Not used where a search service is named."""
    top_k: int = Field(default=3, ge=1, le=100)
    """Number of documents returned for one query."""
    max_queries: int = Field(default=4, ge=1, le=32)
    """Most queries, and most sub-questions, in one turn; more are left out."""
    max_documents: int = Field(default=12, ge=1, le=1000)
    """Most documents in a prompt: the latest ones."""
    document_chars: int = Field(default=1200, ge=50)
    """Most characters of one document in a prompt, from its beginning."""
