"""A server that answers every request with given bytes, HTTP or not."""

import socket
import threading
from contextlib import suppress


class ByteServer:
    """`answer(connection, request)` sends what it likes; the connection is closed when it returns."""

    def __init__(self, answer):
        self.requests = []
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.base_url = f"http://{self.address}/v1"

    def __enter__(self):
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536) or b"\r\n\r\n"
            head, _, body = request.partition(b"\r\n\r\n")
            lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            length = int(lines[0].split(b":")[1]) if lines else 0
            while len(body) < length:
                body += connection.recv(65536)
            self.requests.append((head, body))
            self._answer(connection, head)


def answering(body: bytes, *headers: str, status: str = "200 OK"):
    """What sends one answer."""

    def answer(connection, _):
        head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))
        connection.sendall(head.encode() + b"\r\n" + body)

    return answer
