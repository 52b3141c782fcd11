"""`python -m deploy.manifests --write` renews docker-compose.yml and k8s/base; without it, says which file differs."""

import sys
from pathlib import Path

from deploy.manifests.compose import compose
from deploy.manifests.kubernetes import base

ROOT = Path(__file__).parents[2]


def files() -> dict[Path, str]:
    """Every written file and what it holds."""
    return {ROOT / "docker-compose.yml": compose()} | {
        ROOT / "k8s" / "base" / name: text for name, text in base().items()
    }


def stale() -> list[str]:
    """The files that differ from what the topology says."""
    return [
        str(file.relative_to(ROOT))
        for file, text in files().items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        for path, content in files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    else:
        sys.stdout.write("".join(f"{name}\n" for name in stale()))
