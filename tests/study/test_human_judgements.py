"""Grades of images become comparisons of systems."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.studies.human_judgements import main
from wuerstchen.study.analysis import analyse
from wuerstchen.study.votes import read_votes


def test_the_higher_grade_wins_and_prompts_are_clusters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grades = {"clip": "11222", "sdv2": "12312", "if-xl": "44444"}
    for name, given in grades.items():
        with (tmp_path / f"annotations_{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Input.index", "Answer.task-quality"])
            for image in ("0_0", "1_3", "1_4"):
                writer.writerows([image, grade] for grade in given)
            writer.writerow(["0_0", ""])
    tags = "\n".join(json.dumps({"tag": tag}) for tag in ("colors", "counting"))
    (tmp_path / "evaluation_metadata.jsonl").write_text(tags)
    main(tmp_path, tmp_path / "votes.csv")
    assert "48 judgements, 45 with a grade, 45 comparisons" in capsys.readouterr().out
    votes = read_votes(tmp_path / "votes.csv")
    found = analyse(votes, replicates=20)
    results = {(each.a, each.b): each.result for each in found.comparisons}
    old = results["CLIP retrieval", "SD 2.1"]
    assert (old.wins, old.ties, old.losses) == (3, 6, 6)
    assert results["IF-XL", "SD 2.1"].rate == 1
    assert [rater.name for rater in found.raters] == ["prompt 0", "prompt 1"]
    assert {each.category for each in found.categories} == {"colors", "counting"}
