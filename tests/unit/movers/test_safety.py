"""Where a mover may go: roots, spellings, overlap, links that lead out, and races with them."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from dms_scheduler.movers import MoverError, PartialFailure, Refused, split_roots
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.filecopy import open_file
from dms_scheduler.movers.paths import locate, split_path
from tests.unit.movers.support import Place, look


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not absolute"),
        ("relative/path", "not absolute"),
        ("./x", "not absolute"),
        ("-rf", "begin with"),
        (":webdav,bearer_token_command=x:/", "begin with"),
        (":local:/etc", "begin with"),
        ("remote:path", "remote"),
        ("s3,env_auth=true:bucket", "remote"),
        ("/data/../etc", "'..'"),
        ("/data/..", "'..'"),
        ("/data/\0x", "NUL"),
        ("/data/\ud800", "no file name"),
    ],
)
def test_a_malformed_path_is_refused(text: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        split_path(text)
    assert (caught.value.error_class, caught.value.retryable) == ("path_refused", False)


@pytest.mark.parametrize(
    "text", ["/pvs", "/pvs/", "/pvs/.", "//pvs//", "/./pvs/./", "/pvs//.//", "///pvs"]
)
def test_a_root_is_known_in_every_spelling(text: str) -> None:
    assert locate(text, ("/pvs",)).parts == ()


@pytest.mark.parametrize("text", ["/pvs2/a", "/", "/pv", "/data"])
def test_a_path_outside_the_roots_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="DMS_DATA_ROOTS") as caught:
        locate(text, ("/pvs",))
    assert caught.value.error_class == "outside_roots"


def test_without_roots_nothing_is_allowed_and_the_error_says_how() -> None:
    with pytest.raises(Refused, match="DMS_DATA_ROOTS=/absolute/path"):
        locate("/data/x", ())


def test_roots_are_separated_like_a_search_path() -> None:
    assert split_roots("/a:/b b/: ") == ("/a", "/b b/")
    assert split_roots("") == ()
    with pytest.raises(Refused):
        split_roots("/a:relative")


def test_a_name_may_hold_a_colon_a_comma_or_two_dots() -> None:
    assert split_path("/a:b/c,d/..e/f..") == ("a:b", "c,d", "..e", "f..")


def test_the_longest_root_wins_and_roots_may_be_links(place: Place) -> None:
    place.write("real/data/a", "1")
    (place.root / "alias").symlink_to("real")
    for root, spelled in (("alias", "alias"), ("alias", "real"), ("real", "real")):
        roots = (str(place.root / root), str(place.src))
        base = place.root / spelled
        result = place.run(src=base / "data", dst=base / f"{root}-{spelled}", roots=roots)
        assert result.totals.files == 1
    # The operator's link is a root; the same link below another root is only a link.
    with pytest.raises(Refused, match="symbolic link"):
        place.run(src=place.root / "alias" / "data")


def test_a_link_in_the_path_is_never_followed(place: Place) -> None:
    outside = place.root.parent / f"{place.root.name}-outside"
    outside.mkdir()
    (outside / "inner").mkdir()
    (place.root / "out").symlink_to(outside)
    for end, path in (
        ("src", place.root / "out"),
        ("src", place.root / "out" / "inner"),
        ("dst", place.root / "out"),
        ("dst", place.root / "out" / "new"),
        ("dst", place.root / "out" / "inner" / "new"),
    ):
        ends = {"src": place.src, "dst": place.dst, end: path}
        with pytest.raises(Refused) as caught:
            place.run(src=ends["src"], dst=ends["dst"])
        assert caught.value.error_class == "symlink_refused"
    assert os.listdir(outside) == ["inner"]
    assert os.listdir(outside / "inner") == []


def test_a_link_in_the_destination_tree_is_not_followed(place: Place) -> None:
    outside = place.root.parent / f"{place.root.name}-outside"
    outside.mkdir()
    place.write("src/sub/file", "data")
    place.dst.mkdir()
    (place.dst / "sub").symlink_to(outside)
    with pytest.raises(PartialFailure):
        place.run()
    assert os.listdir(outside) == []


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ("src", "src"),
        ("src", "src/sub"),
        ("src", "src/sub/new/deep"),
        ("src/sub", "src"),
        (".", "src"),
    ],
)
def test_overlapping_ends_are_refused(place: Place, src: str, dst: str) -> None:
    place.write("src/sub/file")
    before = look(place.root)
    with pytest.raises(Refused) as caught:
        place.run(src=f"{place.root}/{src}", dst=f"{place.root}/{dst}")
    assert caught.value.error_class == "overlap"
    assert look(place.root) == before


def test_overlap_is_seen_through_nested_roots(place: Place) -> None:
    place.write("src/sub/file")
    roots = (str(place.root), str(place.src))
    with pytest.raises(Refused) as caught:
        place.run(src=place.src / "sub", dst=place.root, roots=roots)
    assert caught.value.error_class == "overlap"


def test_a_file_is_not_copied_onto_itself(place: Place) -> None:
    file = place.write("src/a", "data")
    os.link(file, place.root / "same")
    for dst in (file, place.src, place.root / "same"):
        with pytest.raises(Refused) as caught:
            place.run(src=file, dst=dst)
        assert caught.value.error_class == "overlap"
    assert file.read_text() == "data"


@pytest.mark.parametrize(
    ("src", "words"),
    [
        ("missing", "does not exist"),
        ("fifo", "FIFO"),
        ("file/below", "a file"),
        ("file/", "a file"),
    ],
)
def test_a_source_that_cannot_be_moved_is_refused(place: Place, src: str, words: str) -> None:
    place.write("file")
    os.mkfifo(place.root / "fifo")
    with pytest.raises(Refused, match=words):
        place.run(src=f"{place.root}/{src}")
    assert not place.dst.exists()


def test_a_destination_that_is_a_file_is_refused(place: Place) -> None:
    place.write("dst", "a file")
    for dst in ("dst", "dst/below"):
        with pytest.raises(Refused, match="is a file"):
            place.run(dst=f"{place.root}/{dst}")


def test_a_root_that_is_not_there_may_come_back(place: Place) -> None:
    with pytest.raises(MoverError, match="not there") as caught:
        place.run(src=place.root / "gone" / "x", roots=(str(place.root / "gone"), str(place.root)))
    assert (caught.value.error_class, caught.value.retryable) == ("root_unavailable", True)


def test_a_root_keeps_its_own_attributes(place: Place) -> None:
    place.write("src/a")
    root = place.root / "root"
    root.mkdir(mode=0o711)
    place.src.chmod(0o700)
    place.run(dst=root, roots=(str(root), str(place.src)))
    assert root.stat().st_mode & 0o777 == 0o711
    assert (root / "a").exists()


def swap(path: Path, link_to: Path, stop: threading.Event) -> None:
    """Exchange a directory (or file) and a link as fast as possible until told to stop."""
    real, link = path.with_name("swap-real"), path.with_name("swap-link")
    link.symlink_to(link_to)
    while not stop.is_set():
        for first, second in ((real, link), (link, real)):
            with suppress(OSError):
                path.rename(first)
                second.rename(path)


@pytest.mark.parametrize("end", ["src", "dst"])
def test_a_swapped_link_never_leads_out(place: Place, end: str) -> None:
    outside = place.root.parent / f"{place.root.name}-outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    inside = place.root / end
    for number in range(10):
        place.write(f"src/sub/{number}", "data")
    (inside / "sub").mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    swapper = threading.Thread(target=swap, args=(inside / "sub", outside, stop))
    swapper.start()
    try:
        for round_number in range(25):
            dst = place.dst if end == "dst" else place.root / f"dst-{round_number}"
            with suppress(MoverError):
                place.run(dst=dst, retries=0)
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    copies = [path for path in look(place.root) if os.path.basename(path) == b"secret"]
    assert not [
        path for path in copies if not os.path.islink(os.fsencode(place.root) + b"/" + path)
    ]


@pytest.mark.parametrize(
    ("dst", "expected"),
    [
        ("new.txt", "new.txt"),
        ("made/deep/new.txt", "made/deep/new.txt"),
        ("existing", "existing/a.txt"),
        ("made/", "made/a.txt"),
    ],
)
def test_a_single_file_has_its_place(place: Place, dst: str, expected: str) -> None:
    file = place.write("src/a.txt", "hello", mtime=123_456_789)
    file.chmod(0o640)
    folder = place.root / "existing"
    folder.mkdir()
    os.utime(folder, ns=(5, 5))
    result = place.run(src=file, dst=f"{place.root}/{dst}")
    assert (result.totals.files, result.totals.bytes) == (1, 5)
    copy = place.root / expected
    assert copy.read_text() == "hello"
    assert (copy.stat().st_mtime_ns, copy.stat().st_mode & 0o777) == (123_456_789, 0o640)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert place.run(src=file, dst=f"{place.root}/{dst}").totals.skipped == 1


def test_a_file_that_became_something_else_is_not_opened(place: Place) -> None:
    (place.src / "link").symlink_to(place.write("secret", "secret"))
    os.mkfifo(place.src / "fifo")
    fd = os.open(place.src, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_file(fd, "link")
        with pytest.raises(FileProblem, match="something else"):
            open_file(fd, "fifo")
    finally:
        os.close(fd)
