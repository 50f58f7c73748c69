"""Programs that agents use, under the filter of system calls and the limits of a sandbox."""

from __future__ import annotations

import shutil
import textwrap

import pytest

from rollmill.sandboxes.sandbox import SandboxError

PYTHON = {
    "asyncio": """
        import asyncio

        async def answer(reader, writer):
            writer.write(await reader.read(5))
            writer.close()

        async def ask(port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            text = await reader.read()
            writer.close()
            return text

        async def main():
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            assert await asyncio.gather(*(ask(port) for _ in range(50))) == [b"hello"] * 50
            process = await asyncio.create_subprocess_exec("true")
            assert await process.wait() == 0

        asyncio.run(main())
    """,
    "multiprocessing": """
        import multiprocessing

        if __name__ == "__main__":
            for method in ("fork", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    assert sum(pool.map(abs, range(100))) == 4950
            assert len(multiprocessing.Array("d", 100_000)) == 100_000
    """,
    "threads": """
        import threading, time
        threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(100)]
        [each.start() for each in threads]
        [each.join() for each in threads]
    """,
    "sqlite": """
        import sqlite3
        base = sqlite3.connect("/tmp/base")
        base.execute("pragma journal_mode=wal")
        base.execute("create table t(a)")
        base.executemany("insert into t values(?)", [(i,) for i in range(1000)])
        base.commit()
        assert base.execute("select sum(a) from t").fetchone() == (499500,)
    """,
    "shared memory": """
        import mmap, os
        memory = mmap.mmap(-1, 50 << 20)
        if os.fork() == 0:
            memory[1] = 2
            os._exit(0)
        os.wait()
        assert memory[1] == 2
    """,
    "allocated files": """
        import os
        file = os.open("/tmp/file", os.O_CREAT | os.O_RDWR)
        os.posix_fallocate(file, 0, 1 << 20)
        assert os.fstat(file).st_size == 1 << 20
    """,
}


@pytest.mark.parametrize("name", PYTHON)
def test_python_runs(start, name):
    done = start().execute(f"cat > main.py << 'END'\n{textwrap.dedent(PYTHON[name])}\nEND\npython3 main.py")
    assert (done.output, done.returncode, done.killed_by) == ("", 0, None)


@pytest.mark.skipif(not shutil.which("node"), reason="there is no node")
def test_node_runs(start):
    code = """
        const http = require("http"), {execSync} = require("child_process"), {Worker} = require("worker_threads");
        require("fs").watch("/tmp").close();
        new Worker("0", {eval: true});
        const server = http.createServer((_, answer) => answer.end(execSync("echo hi"))).listen(0, () =>
            http.get({port: server.address().port}, (answer) =>
                answer.on("data", (text) => console.log(String(text).trim())).on("end", () => server.close())));
    """
    done = start().execute(f"cat > main.js << 'END'\n{code}\nEND\nnode main.js")
    assert (done.output, done.returncode) == ("hi\n", 0)


@pytest.mark.skipif(not (shutil.which("gdb") and shutil.which("strace")), reason="there is no gdb or strace")
def test_debuggers_trace_a_program(start):
    script = """
        printf 'int main(void) { return 3; }' > three.c && gcc -g three.c -o three
        gdb -q -batch -ex run ./three 2>&1 | tail -1
        strace -f -o /dev/null ./three; echo $?
    """
    lines = start().execute(textwrap.dedent(script)).output.splitlines()
    assert lines[0].endswith("exited with code 03]")
    assert lines[1:] == ["3"]


def test_a_command_whose_processes_cannot_be_seen_fails(start, monkeypatch):
    monkeypatch.setattr("rollmill.sandboxes.watch._LONGEST_START_S", 0.2)
    monkeypatch.setattr("rollmill.sandboxes.processes.ProcessTable.read", lambda table: [])
    with pytest.raises(SandboxError, match="cannot be counted"):
        start().execute("sleep 5")
