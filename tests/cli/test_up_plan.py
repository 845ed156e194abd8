"""What `up` decides before it starts anything: roots, ports, tokens, locks, where the socket is."""

import os
import socket
from pathlib import Path

import pytest

from cli.embedded import MAX_SOCKET_PATH, EmbeddedServer
from cli.errors import ExitCode, UpError
from cli.up.locks import hold_directory, hold_server
from cli.up.part import describe_exit, rotate
from cli.up.plan import (
    Reservation,
    checked_roots,
    default_data_dir,
    demo_folder,
    operator_token,
    parts_environment,
    private_folder,
    token_file,
)
from cli.up.tail import Tails


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory as `up` makes it."""
    return private_folder(tmp_path / "own")


def test_roots_are_absolute_and_named_once(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "자료"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    assert checked_roots([Path("자료"), root, tmp_path / "link"], data_dir) == [root]


@pytest.mark.parametrize("spelling", ["/", "/..", "~", "~/.", "~/.."])
def test_roots_that_hold_too_much_are_refused(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users/me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "users/me"))
    root = Path(spelling.replace("~", str(tmp_path / "users/me")))
    with pytest.raises(UpError, match="home directory") as caught:
        checked_roots([root], tmp_path / "elsewhere")
    assert caught.value.code is ExitCode.USAGE
    assert "--root" in caught.value.remedy


def test_a_root_and_our_own_data_stay_apart(tmp_path: Path, data_dir: Path) -> None:
    (data_dir / "logs").mkdir()
    for root in (tmp_path, data_dir, data_dir / "logs"):
        with pytest.raises(UpError, match="own data"):
            checked_roots([root], data_dir)


def test_a_root_that_is_none(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a:b").mkdir()
    for name, words in (("file", "not a folder"), ("missing", "not a folder"), ("a:b", "':'")):
        with pytest.raises(UpError, match=words):
            checked_roots([tmp_path / name], data_dir)


def test_the_folder_is_private(tmp_path: Path) -> None:
    tmp_path.joinpath("open").mkdir(mode=0o755)
    assert private_folder(tmp_path / "open").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(UpError, match="cannot be used"):
        private_folder(tmp_path / "file")


def test_where_the_data_is_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir({"XDG_DATA_HOME": "/srv/x"}) == Path("/srv/x/dms")
    assert default_data_dir({}) == tmp_path / ".local/share/dms"
    assert default_data_dir({"XDG_DATA_HOME": "relative"}) == tmp_path / ".local/share/dms"


def test_one_token_a_data_directory_for_its_owner_alone(data_dir: Path) -> None:
    first = operator_token(data_dir, {})
    assert len(first) > 30
    assert operator_token(data_dir, {"DMS_OPERATOR_TOKEN": "changeme"}) == first
    assert token_file(data_dir).stat().st_mode & 0o777 == 0o600
    assert operator_token(data_dir, {"DMS_OPERATOR_TOKEN": "mine"}) == "mine"


def test_the_demo_is_there_again_whatever_was_done_to_it(data_dir: Path) -> None:
    demo = demo_folder(data_dir)
    (demo / "from/hello.txt").unlink()
    assert (demo_folder(data_dir) / "from/hello.txt").read_text() == "DMS moved this file.\n"


def test_a_busy_port_is_named_and_a_reserved_one_refuses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UpError, match=str(port)) as caught:
            Reservation(port)
        assert "--port" in caught.value.remedy
    reserved = Reservation(0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reserved.port))
    # The part that it is kept for can listen there, again and again.
    for _ in range(2):
        socket.create_server(("127.0.0.1", reserved.port)).close()
    reserved.close()


def test_a_second_up_is_told_who_holds_the_directory(data_dir: Path) -> None:
    lock = hold_directory(data_dir)
    with pytest.raises(UpError, match=f"process {os.getpid()}, since 20"):
        hold_directory(data_dir)
    os.close(lock)
    os.close(hold_directory(data_dir))


def test_an_old_servers_lock_is_waited_for(data_dir: Path) -> None:
    held = [hold_server(data_dir, 0, lambda _: None)]
    with pytest.raises(UpError, match="earlier `up`"):
        hold_server(data_dir, 0, lambda _: None)
    # It ends while somebody waits.
    os.close(hold_server(data_dir, 60, lambda _: os.close(held.pop())))
    assert held == []


def test_the_socket_fits_into_an_address(tmp_path: Path) -> None:
    near = EmbeddedServer.of(tmp_path)
    assert near.socket == tmp_path / "server.sock"
    deep = tmp_path / ("x" * 120)
    far = EmbeddedServer.of(deep)
    assert len(str(far.socket).encode()) <= MAX_SOCKET_PATH
    assert far.socket == EmbeddedServer.of(deep).socket != EmbeddedServer.of(tmp_path / "y").socket
    assert far.socket.parent.stat().st_mode & 0o777 == 0o700
    far.tidy()
    assert not far.socket.parent.exists()
    near.tidy()
    assert tmp_path.exists()


def test_a_socket_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    deep = tmp_path / ("x" * 120)
    folder = EmbeddedServer.of(deep).socket.parent
    folder.chmod(0o777)
    try:
        with pytest.raises(UpError, match="not a private folder"):
            EmbeddedServer.of(deep)
    finally:
        folder.rmdir()


def test_the_parts_find_each_other_whatever_the_caller_has_set(tmp_path: Path) -> None:
    server = EmbeddedServer.of(tmp_path)
    base = {"DMS_REDIS_WRITE_URL": "redis://cluster", "DMS_LOG_JSON": "true", "PATH": "/bin"}
    made = parts_environment(
        server, port=1, scheduler_port=2, roots=[Path("/a"), Path("/b")], token="t", base=base
    )
    assert made["DMS_REDIS_WRITE_URL"] == made["DMS_REDIS_READ_URL"] == server.url
    assert made["DMS_SCHEDULER_BASE_URL"] == "http://127.0.0.1:2"
    assert made["DMS_DATA_ROOTS"] == "/a:/b"
    assert (made["DMS_LOG_JSON"], made["PATH"]) == ("true", "/bin")


def test_logs_stay_bounded(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    rotate(log)
    log.write_bytes(b"")
    os.truncate(log, 17 * 1024 * 1024)
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "worker.log.1").exists()


def test_tails_say_whole_lines_of_what_is_new(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("old\n")
    said: list[str] = []
    tails = Tails([("worker", log), ("other", tmp_path / "none")], said.append)
    with log.open("ab") as file:
        file.write("하나\n반".encode()[:-1])
    tails.look()
    with log.open("ab") as file:
        file.write("반".encode()[-1:] + b"\n")
    tails.look()
    log.write_text("new\n")  # rotated
    tails.look()
    assert said == ["[worker] 하나", "[worker] 반", "[worker] new"]


def test_exits_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(-99) == "killed by signal 99"
