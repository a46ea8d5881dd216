"""How `kafka_jars.txt` is made anew: `dcp stack lock-jars`, after a change of the versions here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from dc_platform.stack.artifacts import Pin, resolve
from dc_platform.stack.downloads import downloads

ROOTS = (
    ("org.apache.kafka", "kafka_2.13", "4.4.0"),
    # Without a binding for slf4j the broker's messages are thrown away.
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.5"),
)
_HEADER = """\
# Apache Kafka with everything it needs, in the order of the class path: coordinate, SHA-256.
# Made by `dcp stack lock-jars`.
"""


def lock_jars() -> str:
    """Resolve `ROOTS`, download every file anew and write the pins; gives what was written."""
    wanted = _resolved()
    lines = []
    with TemporaryDirectory() as scratch, downloads("Apache Kafka") as counter:
        counter.expect(len(wanted))
        for group, artifact, version in wanted:
            path = resolve(Pin(group, artifact, version, ""), Path(scratch), counter)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{group}:{artifact}:{version} {digest}\n")
    text = _HEADER + "".join(lines)
    Path(__file__).with_name("kafka_jars.txt").write_text(text)
    return text


def _resolved() -> list[tuple[str, str, str]]:
    """The roots and their dependencies, each artifact once.

    Each root is resolved alone: together, jgo lets the second one's parent choose versions of what
    the first one depends on (kafka-clients 3.9 beside Kafka 4.4). The first root's choice holds.
    """
    from jgo.maven import Dependency, MavenContext

    context = MavenContext()
    chosen: dict[tuple[str, str], str] = {}
    for group, artifact, version in ROOTS:
        chosen.setdefault((group, artifact), version)
        root = Dependency(context.project(group, artifact).at_version(version).artifact())
        for node in context.resolver.get_dependency_list([root])[1]:
            if node.dep.scope in ("compile", "runtime"):
                chosen.setdefault((node.dep.groupId, node.dep.artifactId), node.dep.version)
    return [(group, artifact, version) for (group, artifact), version in chosen.items()]
