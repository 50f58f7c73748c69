"""An S3 server (moto's) that knows one key, checks every signature, and fails where a test says so."""

import json
import logging
import threading

from moto import settings
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from pydantic import SecretStr
from werkzeug.serving import make_server

from rollmill.files.store import StoreConfig

_ACCOUNT = "123456789012"


class S3Server:
    """A server with one bucket, `results`, which is empty again when the server ends."""

    def __init__(self, key="canary-key-id", secret="canary-secret"):
        self.key = key
        self.secret = secret
        self.faults = []
        """HTTP statuses with which the next requests are answered."""
        self.closed_to = None
        """Requests with this in their paths are refused."""

    def __enter__(self):
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        s3_backends[_ACCOUNT]["aws"].create_bucket("results", "us-east-1")
        users = iam_backends[_ACCOUNT]["aws"]
        users.create_user("us-east-1", "user")
        access_key = users.create_access_key("user")
        access_key.access_key_id, access_key.secret_access_key = self.key, self.secret
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        users.put_user_policy("user", "all", json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")
        s3_backends.reset()
        iam_backends.reset()

    def _answer(self, environ, start_response):
        closed = self.closed_to is not None and self.closed_to in environ["PATH_INFO"]
        if not closed and not self.faults:
            return self._moto(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("403 Closed" if closed else f"{self.faults.pop(0)} Not now", [("Content-Length", "0")])
        return [b""]

    def config(self, url="s3://results/runs", **changes):
        """Return the address and keys of the server; a block takes the same."""
        address = {"endpoint_url": self.url, "key": SecretStr(self.key), "secret": SecretStr(self.secret)}
        return StoreConfig(url=url, **address | changes)

    def objects(self):
        """Return the content of every object in the bucket, by name."""
        keys = s3_backends[_ACCOUNT]["aws"].buckets["results"].keys
        return {name: key.value for name, key in keys.items()}
