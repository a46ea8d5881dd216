"""One Trino for all tests: it takes half a minute to start. Each test gives it catalogs of its own."""

from __future__ import annotations

from pathlib import Path

from dc_platform.stack import ports, trino_catalogs
from dc_platform.stack.server import write_properties
from dc_platform.stack.trino import LocalTrino
from dc_platform.stack.trino_catalogs import KAFKA, LAKE, Topic
from dc_platform.stack.trino_client import TrinoClient
from dc_platform.stack.trino_tables import TrinoTables

# Catalogs come by SQL: nothing of a former test is left when they are made anew.
_DIRECTORY = "catalog.config-dir"
_DYNAMIC = "catalog.management=dynamic\ncatalog.store=memory\n"


class SharedTrino(LocalTrino):
    """A Trino whose catalogs are changed while it runs."""

    def __init__(self, directory: Path) -> None:
        port = ports.choose(needed=("trino",), remembered={}, auto=True)["trino"]
        # Its own catalogs are never loaded.
        super().__init__(
            directory,
            port,
            lake=str(directory / "lake"),
            bootstrap="127.0.0.1:9",
            topic="none",
            memory_mb=2048,
        )

    def prepare(self) -> list[str]:
        """As in a stack, but for the catalogs."""
        command = super().prepare()
        config = self.directory / "etc" / "config.properties"
        lines = [line for line in config.read_text().splitlines() if _DIRECTORY not in line]
        config.write_text("\n".join(lines) + f"\n{_DYNAMIC}")
        return command

    def answers(self) -> bool:
        """Whether it takes statements."""
        try:
            return self.query("SELECT 1") == [[1]]
        except Exception:
            return False

    def show(self, lake: str, bootstrap: str = "127.0.0.1:9", topic: str = "none") -> Tables:
        """The platform's catalogs over this lake and topic, as `dcp trino catalog` writes them."""
        if "://" not in lake:
            Path(lake).mkdir(parents=True, exist_ok=True)
        for name, content in trino_catalogs.files(lake, Topic(bootstrap, topic)).items():
            write_properties(self.directory / "etc" / name, content)
        for name in (LAKE, KAFKA):
            self.catalog(name, (self.directory / "etc/catalog" / f"{name}.properties").read_text())
        return self.tables(lake, bootstrap, topic)

    def tables(self, lake: str, bootstrap: str, topic: str) -> Tables:
        """What `show` gives, without changing the catalogs."""
        return Tables(self.url, lake, Topic(bootstrap, topic))

    def catalog(self, name: str, properties: str) -> None:
        """A catalog in place of that of the same name."""
        lines = [line for line in properties.splitlines() if line and not line.startswith("#")]
        given = dict(line.split("=", 1) for line in lines)
        connector = given.pop("connector.name")
        values = ", ".join(f"\"{key}\" = U&'{_sql(value)}'" for key, value in given.items())
        self.query(f"DROP CATALOG IF EXISTS {name}")
        self.query(f"CREATE CATALOG {name} USING {connector} WITH ({values})")


class Tables(TrinoClient):
    """The shared Trino, with one test's tables."""

    def __init__(self, url: str, lake: str, topic: Topic) -> None:
        super().__init__(url)
        self.tables = TrinoTables(self, lake, topic)

    def keep(self) -> set[str]:
        """What the supervisor has done every ten seconds."""
        return self.tables.keep()


def _sql(value: str) -> str:
    """Escapes of Java's properties are nearly those of SQL."""
    return value.replace("\\u", "\\").replace("'", "''")
