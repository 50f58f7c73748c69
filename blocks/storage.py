"""The block of a result store, and its key."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.loading import load_block
from rollmill.files.store import Store, StoreConfig


class ResultStore(Block):
    """A store that results of runs are copied to, in addition to the output directory: a shared folder, or S3.

    With `--store_block NAME` a flow copies the run's results to `<url>/<name of the run's directory>/`.
    """

    _block_type_name = "Result store"
    _block_type_slug = "result-store"
    _description = "A place that the results of runs are copied to: a folder that machines share, or a bucket of S3."

    url: str = Field(
        description="An absolute folder that is there (/shared/results), or a URL such as s3://bucket/prefix.",
        min_length=1,
    )
    endpoint_url: str | None = Field(
        default=None,
        description="Address of a server that speaks S3 (http://minio:9000); leave empty for Amazon's own.",
        pattern=r"^https?://\S+$",
    )
    key: SecretStr | None = Field(
        default=None,
        description="Access key id for S3; leave empty for the worker's own (AWS_ACCESS_KEY_ID, a profile or a role).",
    )
    secret: SecretStr | None = Field(default=None, description="Secret access key for S3; goes with the key.")

    def check(self) -> str:
        """Write, read and delete a small file there; return a one-line confirmation.

        Raises `InputError` if the store does not exist or refuses the key, `RunStoppedError` if nothing answers.
        """
        return Store(self.to_config()).check()

    def to_config(self) -> StoreConfig:
        """Return the configuration object of the domain."""
        return StoreConfig(url=self.url, endpoint_url=self.endpoint_url, key=self.key, secret=self.secret)


def result_store(name: str) -> StoreConfig:
    """Return the config of a saved `ResultStore`. Raises `InputError` where there is no such block."""
    return load_block(ResultStore, name).to_config()
