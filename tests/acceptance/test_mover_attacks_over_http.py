"""Injections through the API: every service, by query string and JSON; canaries untouched."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack
from tests.unit.movers.swaps import SECRET, Canary

ENDS = {
    "sync": ("src", "dst"),
    "copy": ("src", "dst"),
    "check": ("src", "dst"),
    "rm": ("path",),
    "hotcold": ("path",),
}
ATTACKS = [
    ":webdav,bearer_token_command='touch {outside}/made':x",
    ":local:{outside}",
    ":alias,remote=/:{outside}",
    "--config={outside}/secret",
    "-x",
    "name,opt=v:p",
    "nobody:{outside}",
    "{root}/../outside/secret",
    "{root}/tree/../../outside",
    "{root}/..",
    "{outside}",
    "{root}/\0",
    "{root}/link",
    "{root}/link/inner",
    "file://{outside}/secret",
    "$(touch {outside}/made)",
    "~root",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "data" / "tree").mkdir(parents=True)
    (folder / "data" / "tree" / "file").write_text("inside")
    (folder / "data" / "link").symlink_to(folder / "outside")
    return folder


@pytest.fixture(scope="module")
def canary(place: Path) -> Canary:
    return Canary.made(place / "outside")


@pytest.fixture(scope="module")
def stack(place: Path, canary: Canary) -> Generator[Stack]:
    with Stack(place, roots=[place / "data"]) as made:
        yield made


def spelled(place: Path, attack: str) -> str:
    return attack.replace("{root}", str(place / "data")).replace("{outside}", f"{place}/outside")


@pytest.mark.parametrize("service", ENDS)
def test_no_path_leads_out(stack: Stack, place: Path, canary: Canary, service: str) -> None:
    inside = {name: str(place / "data" / "tree") for name in ENDS[service]}
    tasks: dict[str, str] = {}
    # A part of them for each service: the tests of the mover try all of them at either end.
    attacks = ATTACKS if service in {"sync", "rm"} else ATTACKS[:: len(ENDS)]
    for number, attack in enumerate(attacks):
        name = ENDS[service][number % len(ENDS[service])]
        given: dict[str, Any] = {**inside, name: spelled(place, attack)}
        if service == "sync":
            given["delete"] = True
        if service == "rm":
            given["recursive"] = True
        tasks[stack.submit(service, "mallory", **given)] = f"{name}={attack}"
    link = place / "data" / "link"
    for task_id, attack in tasks.items():
        task = stack.wait(task_id)
        # Removing the link itself is allowed, and removes no more than it.
        if attack == "path={root}/link" and service == "rm":
            assert task["status"] == "COMPLETED"
            link.symlink_to(place / "outside")
            continue
        assert task["status"] == "FAILED", attack
        assert task["attempts"] == 1, (attack, task["history"])
        assert SECRET not in json.dumps(task)
    canary.assert_untouched()
    assert sorted(os.listdir(place / "data")) == ["link", "tree"]
    assert (place / "data" / "tree" / "file").read_text() == "inside"


def test_query_strings_are_no_way_around(stack: Stack, place: Path, canary: Canary) -> None:
    """Encoded twice, repeated, or with parameters that no service has."""
    root = place / "data"
    queries = [
        f"src={root}/tree&dst={root}%2f..%2foutside",
        f"src={root}/tree&dst={root}/tree&dst={place}/outside",
        f"src={root}/tree&dst={root}/new&roots=/",
        f"src={root}/tree&dst={root}/new&DMS_DATA_ROOTS=/",
        f"src={root}/tree&dst={root}/new&options=--config%20/x",
        f"src={root}/tree&dst={root}/new&options=;touch%20{place}/outside/made",
        f"src={root}/tree&dst={root}/new&options=$(touch%20{place}/outside/made)",
        f"src={root}/tree%00&dst={root}/new",
    ]
    for query in queries:
        answer = stack.client.post(f"/api/v1/services/sync/users/mallory/tasks?{query}")
        if answer.status_code == 202:
            task = stack.wait(str(answer.json()["task_id"]))
            assert task["status"] == "FAILED", query
        else:
            assert 400 <= answer.status_code < 500, query
        assert not (root / "new").exists(), query
    canary.assert_untouched()
