"""The server: votes are on disk at once, raters are apart, nothing leaks, strangers are refused."""

import html
import itertools
import json
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from made_study import Serve
from typer.testing import CliRunner

from wuerstchen.cli import app as command
from wuerstchen.errors import ConfigError, DataError, SaveError
from wuerstchen.study.ballot import offline_page
from wuerstchen.study.folder import KEY, VOTES, Study, key_digest, open_study
from wuerstchen.study.gather import gather
from wuerstchen.study.serve import build_app
from wuerstchen.study.store import VoteStore, stored_votes


@pytest.fixture
def store(tmp_path: Path, made: Path) -> Iterator[VoteStore]:
    study, key = open_study(made)
    found = VoteStore(tmp_path / VOTES, study.id, key_digest(key))
    yield found
    found.close()


@pytest.fixture
def client(made: Path, store: VoteStore) -> TestClient:
    study, _ = open_study(made)
    return TestClient(build_app(study, made, store, ["study.lab"]), base_url="http://localhost:1")


@pytest.fixture
def study(made: Path) -> Study:
    return open_study(made)[0]


def body(study: Study, index: int = 0, **changes: object) -> dict[str, object]:
    pair = study.pairs[index]
    values = {"pair": pair.id, "left": pair.images[0], "choice": "left", "seconds": 1.5}
    return {**values, "change": False, **changes}


def test_a_vote_is_stored_and_shown_again(
    client: TestClient, store: VoteStore, study: Study
) -> None:
    (token,) = store.tokens(1)
    assert client.post(f"/r/{token}/votes", json=body(study)).status_code == 204
    (found,) = store.votes()
    pair = study.pairs[0]
    assert (found.rater, found.pair, found.left, found.choice) == (
        *("rater 1", pair.id, pair.images[0], "left"),
    )
    assert pair.id in client.get(f"/r/{token}/").text.partition('"votes"')[2][:60]


def test_a_rater_votes_once_unless_they_go_back(
    client: TestClient, store: VoteStore, study: Study
) -> None:
    token, other = store.tokens(2)
    client.post(f"/r/{token}/votes", json=body(study))
    again = client.post(f"/r/{token}/votes", json=body(study, choice="tie"))
    assert again.status_code == 409
    assert "found a vote (left)" in again.text
    changed = client.post(f"/r/{token}/votes", json=body(study, choice="tie", change=True))
    assert changed.status_code == 204
    client.post(f"/r/{other}/votes", json=body(study, choice="right"))
    assert [(vote.rater, vote.choice) for vote in store.votes()] == [
        *(("rater 1", "tie"), ("rater 2", "right")),
    ]
    with sqlite3.connect(store._path) as db:
        assert db.execute("SELECT count(*) FROM votes").fetchone() == (3,)  # nothing is lost


def test_pages_and_images_say_nothing_of_systems(
    client: TestClient, store: VoteStore, study: Study
) -> None:
    (token,) = store.tokens(1)
    page = client.get(f"/r/{token}/")
    for word in ("round", "angular", "circles", "squares", "catch", "repeat"):
        assert word not in page.text.partition('id="data"')[2].partition("</script>")[0]
    image = client.get(f"/r/{token}/images/{study.pairs[0].images[0]}.png")
    assert image.headers["content-type"] == "image/png"
    for answer in (page, image):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for path in ("key.json", "study.json", "votes.sqlite"):
        assert client.get(f"/r/{token}/{path}").status_code == 404
        assert client.get(f"/r/{token}/images/..%2F{path}").status_code == 404


def test_strangers_are_refused(client: TestClient, store: VoteStore, study: Study) -> None:
    (token,) = store.tokens(1)
    url = f"/r/{token}/votes"
    assert client.get("/r/unknown/").status_code == 404
    assert client.post("/r/unknown/votes", json=body(study)).status_code == 404
    for host, status in (
        *(("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("study.lab", 200)),
        *(("evil.example", 421), ("localhost.evil.example", 421), ("[::2]", 421)),
    ):
        assert client.get(f"/r/{token}/", headers={"Host": host}).status_code == status, host
    elsewhere = client.post(url, json=body(study), headers={"Origin": "http://evil.example"})
    assert elsewhere.status_code == 403
    assert store.votes() == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"choice": "both"}, 422),
        ({"seconds": -1}, 422),
        ({"seconds": "1"}, 422),
        ({"extra": 1}, 422),
        ({"pair": "0" * 16}, 404),
        ({"left": "0" * 16}, 404),
        ({"pair": "x" * 5000}, 413),
    ],
)
def test_bad_votes_are_refused_in_a_sentence(
    client: TestClient, store: VoteStore, study: Study, changes: dict[str, object], status: int
) -> None:
    (token,) = store.tokens(1)
    answer = client.post(f"/r/{token}/votes", json=body(study, **changes))
    assert answer.status_code == status
    assert answer.text.startswith("Expected a vote")
    assert store.votes() == []


def test_raters_of_many_threads_lose_no_vote(
    client: TestClient, store: VoteStore, study: Study
) -> None:
    tokens = store.tokens(6)

    def rate(token: str) -> None:
        for index in range(len(study.pairs)):
            client.post(f"/r/{token}/votes", json=body(study, index))

    threads = [threading.Thread(target=rate, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.votes()) == 6 * len(study.pairs)


def test_tokens_stay_and_are_secret(store: VoteStore) -> None:
    first = store.tokens(2)
    assert store.tokens(4)[:2] == first
    assert len(set(store.tokens(4))) == 4
    assert all(len(token) >= 16 for token in first)


def test_votes_of_another_study_are_refused(tmp_path: Path, store: VoteStore) -> None:
    with pytest.raises(DataError, match="expected votes of study ffff, found those of study"):
        VoteStore(tmp_path / VOTES, "ffff", "")
    (tmp_path / "other.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="expected a database of votes"):
        VoteStore(tmp_path / "other.sqlite", "ffff", "")


def test_votes_given_with_another_key_are_refused(tmp_path: Path, made: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(made, folder)
    study, key = open_study(folder)
    VoteStore(folder / VOTES, study.id, key_digest(key)).close()
    assert stored_votes(folder / VOTES, study.id, key_digest(key)) == []
    text = (folder / KEY).read_text()
    swapped = text.replace('"system": "round"', '"system": "?"')
    swapped = swapped.replace('"system": "angular"', '"system": "round"')
    (folder / KEY).write_text(swapped.replace('"system": "?"', '"system": "angular"'))
    with pytest.raises(DataError, match=r"found those of another key.*restore key\.json"):
        gather(folder, [])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_all_addresses_need_a_name(made: Path, host: str) -> None:
    done = CliRunner().invoke(command, ["study", "serve", str(made), "--host", host])
    assert isinstance(done.exception, ConfigError)
    assert "name how browsers call this machine" in str(done.exception)
    assert not (made / VOTES).exists()


def test_a_database_that_cannot_be_written_is_named(store: VoteStore) -> None:
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(SaveError, match=r"votes\.sqlite: could not be written \("):
        store.tokens(1)


def votes_file(made: Study, rater: str, choices: str, **changes: object) -> str:
    votes = [
        {"pair": p.id, "left": p.images[0], "choice": choice, "seconds": 1, "at": "2026"}
        for p, choice in zip(made.pairs, choices.split(), strict=False)
    ]
    return json.dumps(
        {"version": 1, "study": made.id, "rater": rater * 16, "votes": votes, **changes}
    )


def test_files_of_raters_are_read_and_may_overlap(tmp_path: Path, made: Path, study: Study) -> None:
    early, late, other = (tmp_path / name for name in ("early", "late", "other"))
    early.write_text(votes_file(study, "a", "left"))
    late.write_text(votes_file(study, "a", "left tie left left left left left left left"))
    other.write_text(votes_file(study, "b", "left"))
    assert len(gather(made, [early, late])) == len(gather(made, [late])) == len(study.pairs)
    _, key = open_study(made)
    winner = {
        f"{vote.item}": vote.a if vote.choice == "a" else vote.b
        for vote in gather(made, [late])
        if vote.kind == "comparison" and vote.choice != "tie"
    }
    for pair in study.pairs:
        if pair.id in winner:
            assert winner[pair.id] == key.images[pair.images[0]].system


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "expected a file of votes, found: version"),
        ("no", "expected a file of votes"),
        ("OTHER", "expected votes of study .*, found those of study 0000"),
        ("PAIR", "found one of file .* on pair 1111"),
        ("TWICE", "one vote of each rater on a pair, found tie of file a.* after left"),
    ],
)
def test_bad_files_of_votes_are_refused(
    tmp_path: Path, made: Path, study: Study, text: str, words: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(votes_file(study, "a", "left left left"))
    vote = {"pair": "1111", "left": "1", "choice": "tie", "seconds": 1, "at": ""}
    texts = {
        "OTHER": votes_file(study, "a", "left").replace(study.id, "0000"),
        "PAIR": votes_file(study, "a", "left", votes=[vote]),
        "TWICE": votes_file(study, "a", "tie"),
    }
    second.write_text(texts.get(text, text))
    with pytest.raises(DataError, match=words):
        gather(made, [first, second])


def test_the_page_without_a_server_asks_nobody_for_anything(made: Path, study: Study) -> None:
    page = offline_page(study, made).decode()
    assert "http:" not in page and "https:" not in page
    assert "default-src 'none'" in html.unescape(page.partition("</head>")[0])
    assert all(f'"{name}": "data:image/png;base64,' in page for name in study.pairs[0].images)


def test_prompts_cannot_break_out_of_the_page(made: Path, study: Study) -> None:
    evil = "</script><script>alert(1)</script>"
    pairs = [study.pairs[0].model_copy(update={"prompt": evil}), *study.pairs[1:]]
    page = offline_page(study.model_copy(update={"pairs": pairs, "title": evil}), made).decode()
    assert "<script>alert" not in page


def votes_until_killed(url: str, study: Study, process_kill: int, serve_process: object) -> int:
    """Vote until the process is killed after some votes; how many were acknowledged."""
    acknowledged = 0
    for index in range(len(study.pairs)):
        try:
            answer = httpx.post(url + "votes", json=body(study, index), timeout=20, trust_env=False)
        except httpx.HTTPError:
            break
        acknowledged += answer.status_code == 204
        if acknowledged == process_kill:
            serve_process.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]
    return acknowledged


def test_every_acknowledged_vote_survives_kill_9(tmp_path: Path, made: Path, serve: Serve) -> None:
    folder = tmp_path / "study"
    shutil.copytree(made, folder)
    study, key = open_study(folder)
    process, links = serve(folder, 2)
    acknowledged = votes_until_killed(links[0], study, 4, process)
    process.wait(30)
    assert acknowledged >= 4
    kept = stored_votes(folder / VOTES, study.id, key_digest(key))
    assert [vote.pair for vote in kept][:acknowledged] == [
        pair.id for pair in itertools.islice(study.pairs, acknowledged)
    ]
    process, again = serve(folder, 2)
    assert [link.rpartition("/r/")[2] for link in again] == [
        link.rpartition("/r/")[2] for link in links
    ]
    page = httpx.get(again[0], trust_env=False).text
    assert all(vote.pair in page.partition('"votes"')[2] for vote in kept)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert f"{len(kept)} votes in" in errors
    assert process.returncode == 0


def test_a_port_in_use_is_refused_in_a_sentence(tmp_path: Path, made: Path, serve: Serve) -> None:
    folder = tmp_path / "study"
    shutil.copytree(made, folder)
    _, (link,) = serve(folder, 1)
    port = link.split(":")[2].split("/")[0]
    done = CliRunner().invoke(command, ["study", "serve", str(made), "--port", port])
    assert "Address already in use" in str(done.exception)


def test_the_command_analyses_a_folder_with_files(tmp_path: Path, made: Path, study: Study) -> None:
    (tmp_path / "a.json").write_text(
        votes_file(study, "a", "left right tie left right tie tie left")
    )
    words = ["study", "analyse", str(made), str(tmp_path / "a.json"), "--min-catch", "0"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "raters: 1, left out: 0; systems: 2" in done.output
