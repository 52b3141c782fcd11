"""The page about TSAs: its runbook has every alert, the alerts ask for figures that there are, its example works."""

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.tsa_connector.metrics import TSAMetrics
from shared.messaging.metrics import Metrics
from shared.registry import Registry
from tests.support.trust_services import ANCHOR

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "deploy" / "prometheus" / "tsa-alerts.yml").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "operating" / "time-stamping-authorities.md").read_text(encoding="utf-8")


def test_every_alert_has_its_part_in_the_runbook_and_the_other_way_round() -> None:
    assert re.findall(r"- alert: (\w+)", ALERTS) == re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)


def test_every_figure_that_an_alert_looks_at_is_kept() -> None:
    page = CollectorRegistry()
    TSAMetrics(page)
    Metrics(page)
    kept = {family.name for family in page.collect()} | {"rakkan_registry_refused"}
    for asked in set(re.findall(r"rakkan_\w+", " ".join(re.findall(r"expr: (.*)", ALERTS)))):
        assert re.sub(r"_(total|bucket)$", "", asked) in kept, asked


def test_the_entry_in_the_page_is_one_that_the_registry_takes() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    entry = json.loads(shown.replace('"-----BEGIN CERTIFICATE-----…"', json.dumps(ANCHOR)))
    assert Registry.model_validate({"version": 1, **entry}).time_stamping_authorities["clock-one"].quotas
