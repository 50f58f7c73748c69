"""An HTTP server that answers chat requests with given responses, and records the requests."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RawServer:
    """`answer(headers, body)` gives (status, body), or (status, body, headers)."""

    def __init__(self, answer):
        self.headers = []
        remembered = self.headers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                remembered.append(dict(self.headers))
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.wfile.write(self._answer_head(body))

            def _answer_head(self, body):
                status, content, *more = answer(dict(self.headers), body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **dict(*more)}.items():
                    self.send_header(name, value)
                self.end_headers()
                return content

            def log_message(self, *_):
                pass

            def do_GET(self):
                remembered.append(dict(self.headers))
                content = self._answer_head(self.path.encode())
                if self.command != "HEAD":
                    self.wfile.write(content)

            def do_HEAD(self):
                self.do_GET()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
