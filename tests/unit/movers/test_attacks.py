"""Attacks by paths and links (RELIABILITY, security 3 and 4): refused, canaries untouched."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import MoverError, Refused
from dms_scheduler.movers.native.removing import remove
from tests.unit.movers.attacks import removal
from tests.unit.movers.support import Place, Recorder, look
from tests.unit.movers.swaps import Canary


def ways_to_spell(root: Path) -> list[str]:
    """A root spelled seven ways, and more."""
    path = str(root)
    return [
        path,
        f"{path}/",
        f"{path}//",
        f"{path}/.",
        f"{path}/./",
        f"/{path}",
        f"/.{path}",
        f"//.//{path}//.//",
        path.replace("/", "//"),
    ]


def test_a_root_in_any_spelling_is_never_removed_or_deleted_from(place: Place) -> None:
    place.write("src/a")
    root = place.root / "root"
    for name in ("keep", "folder/keep"):
        place.write(f"root/{name}")
    alias = place.root / "alias"
    alias.symlink_to(root)
    before = look(root)
    for roots in ((str(root), str(place.src)), (str(alias), str(place.src))):
        for spelled in (*ways_to_spell(root), *ways_to_spell(alias)):
            if str(alias) in spelled.replace("//", "/") and str(alias) not in roots:
                continue
            with pytest.raises(Refused) as caught:
                remove(removal(place, spelled, roots=roots), Recorder())
            assert caught.value.error_class == "root_refused", spelled
            with pytest.raises(Refused) as caught:
                place.run(dst=spelled, delete=True, roots=roots)
            assert caught.value.error_class == "root_refused", spelled
            assert look(root) == before


@pytest.mark.parametrize("spelled", ["{outer}/later", "{canary}"])
def test_a_root_inside_a_root_cannot_be_a_link(place: Place, canary: Canary, spelled: str) -> None:
    """A task for the outer root may put a link where the inner one will be mounted some day."""
    outer = place.root / "outer"
    outer.mkdir()
    (place.src / "later").symlink_to(canary.folder)
    roots = (str(place.src), str(outer), str(outer / "later"))
    place.run(dst=outer, roots=roots)
    assert (outer / "later").is_symlink()
    (place.src / "later").unlink()
    place.write("src/file", "planted")
    path = spelled.replace("{outer}", str(outer)).replace("{canary}", str(canary.folder))
    for order in (roots, roots[::-1]):
        for src, dst in (
            (place.src, path),
            (place.src, f"{path}/inner"),
            (path, outer / "new"),
            (f"{path}/inner", outer / "new"),
        ):
            with pytest.raises(Refused) as caught:
                place.run(src=src, dst=dst, roots=order)
            assert caught.value.error_class in {"symlink_refused", "outside_roots"}
        with pytest.raises(MoverError):
            remove(removal(place, f"{path}/inner", roots=order), Recorder())
    assert os.listdir(outer) == ["later"]
    canary.assert_untouched()


def test_a_root_inside_a_root_is_not_made(place: Place) -> None:
    """Its file system is not mounted: what was meant for it must not go to the outer one."""
    place.write("src/file")
    (place.root / "alias").symlink_to(place.root)
    roots = (str(place.root), str(place.root / "deep" / "later"))
    for dst in ("deep/later", "deep/later/x", "deep/later/x/y", "./deep//later/."):
        with pytest.raises(MoverError, match="deep/later is not there") as caught:
            place.run(dst=f"{place.root}/{dst}", roots=roots)
        assert (caught.value.error_class, caught.value.retryable) == ("root_unavailable", True)
    assert sorted(os.listdir(place.root)) == ["alias", "src"]
    place.run(dst=place.root / "deep" / "beside", roots=roots)


@pytest.mark.root
def test_a_root_behind_a_bind_mount_is_still_a_root(
    place: Place, mount: Callable[..., None]
) -> None:
    place.write("src/a")
    root = place.root / "root"
    place.write("root/folder/keep")
    alias = place.root / "alias"
    mount("--bind", str(root), where=alias)
    roots = (str(root), str(place.root))
    before = look(root)
    for spelled in ways_to_spell(alias):
        with pytest.raises(MoverError):
            remove(removal(place, spelled, roots=roots), Recorder())
        with pytest.raises(Refused) as caught:
            place.run(dst=spelled, delete=True, roots=roots)
        assert caught.value.error_class == "root_refused"
        assert look(root) == before


@pytest.mark.root
def test_what_holds_a_root_or_a_mount_is_not_removed(
    place: Place, mount: Callable[..., None], canary: Canary
) -> None:
    place.write("top/holds/root/keep")
    place.write("top/file")
    mounted = place.root / "top" / "mounted"
    mount("--bind", str(canary.folder), where=mounted)
    roots = (str(place.root), str(place.root / "top" / "holds" / "root"))
    for path in ("top", "top/holds", "top/mounted", "top/holds/root"):
        with suppress(MoverError):
            remove(removal(place, place.root / path, roots=roots), Recorder())
        assert (place.root / "top/holds/root/keep").exists()
        canary.assert_untouched()


@pytest.mark.parametrize(
    "text",
    [
        ":webdav,bearer_token_command='touch x':x",
        ":local:/etc",
        ":alias,remote=/:",
        ":sftp,host=h:",
        "--config=/x",
        "-x",
        "name,opt=v:p",
        "s3,env_auth=true:bucket",
        "{root}/\0",
        "{root}/../outside",
        "{root}/src/../../outside",
        "{root}/..",
        "../x",
        "..",
        "/..",
        "{root}/src/..",
        "~/x",
        "file:///etc",
        "C:\\x",
        "\\\\server\\share",
        "",
        " ",
        "{root}/\udcff\ud800",
    ],
)
def test_an_injection_is_refused_at_either_end(place: Place, text: str) -> None:
    place.write("src/a")
    before = look(place.root)
    path = text.replace("{root}", str(place.root))
    for src, dst in ((path, place.dst), (place.src, path)):
        with pytest.raises(Refused) as caught:
            place.run(src=src, dst=dst)
        assert caught.value.error_class in {"path_refused", "outside_roots"}, caught.value
    with pytest.raises(Refused) as caught:
        remove(removal(place, path), Recorder())
    assert caught.value.error_class in {"path_refused", "outside_roots"}
    assert look(place.root) == before


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..\\..", "‥", "．．", "...", ".. ", "∕etc", "%00", "~"]
)
def test_what_only_looks_like_a_way_out_is_a_plain_name(
    place: Place, canary: Canary, name: str
) -> None:
    place.write(f"src/{name}/a", "data")
    place.run(src=place.src / name, dst=place.dst / name)
    assert (place.dst / name / "a").read_text() == "data"
    assert os.listdir(place.dst) == [name]
    remove(removal(place, place.dst / name), Recorder())
    assert os.listdir(place.dst) == []
    canary.assert_untouched()


def test_a_link_at_any_place_of_a_path_is_refused(place: Place, canary: Canary) -> None:
    place.write("src/file")
    (place.src / "folder").mkdir()
    (place.root / "plain").mkdir()
    for target in (canary.folder, "../" + canary.folder.name, "/", ".", "link"):
        link = place.root / "plain" / "link"
        link.symlink_to(target)
        for path in (link, link / "inner", link / "new", link / "inner" / "new"):
            for src, dst in ((place.src, path), (place.src, f"{path}/"), (path, place.dst)):
                with pytest.raises(MoverError) as caught:
                    place.run(delete=True, src=src, dst=dst)
                assert caught.value.error_class in {"symlink_refused", "bad_source"}
            if path != link:
                with pytest.raises(MoverError):
                    remove(removal(place, path), Recorder())
        with suppress(MoverError):
            remove(removal(place, link), Recorder())
        canary.assert_untouched()
        with suppress(FileNotFoundError):
            link.unlink()
