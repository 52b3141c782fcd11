"""The page about CAs at work: its runbook has every alert, and the alerts ask for figures and kinds that there are."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.ca_connector.metrics import Metrics
from shared.errors import Code

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "deploy" / "prometheus" / "ca-alerts.yml").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "operating" / "certification-authorities.md").read_text(encoding="utf-8")
PLACES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "services" / "ca_connector").glob("*.py"))


def test_every_alert_has_its_part_in_the_runbook_and_the_other_way_round() -> None:
    assert re.findall(r"- alert: (\w+)", ALERTS) == re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)


def test_every_figure_that_an_alert_looks_at_is_kept_and_stands_in_the_page() -> None:
    page = CollectorRegistry()
    Metrics(page)
    kept = {family.name for family in page.collect()}
    for asked in set(re.findall(r"rakkan_\w+", " ".join(re.findall(r"expr: (.*)", ALERTS)))):
        assert re.sub(r"_(total|bucket)$", "", asked) in kept, asked
    for name in kept:
        assert name in PAGE or name.removeprefix("rakkan_ca_status") in PAGE, name


def test_every_kind_of_failure_that_an_alert_looks_at_is_counted() -> None:
    for kinds in re.findall(r'kind=~?"([\w|]+)"', ALERTS):
        for kind in kinds.split("|"):
            assert kind in {code.value for code in Code} or f'"{kind}"' in PLACES, kind
