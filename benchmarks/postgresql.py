"""A private server of PostgreSQL for a benchmark: Debian's, started by root as the user postgres, gone afterwards."""

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

CONNECTIONS = 1_200


class Server:
    """A server of this machine that only it can reach. A transaction is on the disk when it is committed, as always."""

    def __enter__(self) -> "Server":
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found or not shutil.which("runuser"):
            sys.exit("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
        self._programs, self._folder = found[-1], Path(tempfile.mkdtemp(prefix="benchmark_postgresql_"))
        shutil.chown(self._folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._run("initdb", "-D", self._folder / "data", "-U", "fsr", "-A", "trust")
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c max_connections={CONNECTIONS}"
        self._run("pg_ctl", "-D", self._folder / "data", "-o", options, "-l", self._folder / "log", "-w", "start")
        self._databases = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """URL of a database that nobody has used yet."""
        self._databases += 1
        self._sql("postgres", f"create database study_{self._databases}")
        return f"postgresql+psycopg://fsr@127.0.0.1:{self._port}/study_{self._databases}"

    def megabytes(self, url: str) -> float:
        """How large a database is."""
        size = self._sql(url.rpartition("/")[2], "select pg_database_size(current_database())")
        return round(int(size) / 1e6, 1)

    def _sql(self, database: str, words: str) -> str:
        where = ("-h", self._folder, "-p", str(self._port), "-U", "fsr", "-d", database)
        return self._run("psql", *where, "-Atc", words)

    def _run(self, program: str, *words: str | Path) -> str:
        command = ["runuser", "-u", "postgres", "--", self._programs / program, *words]
        # The server that pg_ctl leaves behind would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as answer:
            subprocess.run(command, check=True, stdout=answer, cwd=self._folder)
            answer.seek(0)
            return answer.read()
