"""The human judgements that GenEval published, as votes that `wuerstchen study analyse` reads.

    python -m benchmarks.studies.human_judgements geneval votes.csv
    wuerstchen study analyse votes.csv --out report

`geneval` is a folder with annotations_clip.csv, annotations_sdv2.csv, annotations_if-xl.csv and
evaluation_metadata.jsonl of github.com/djghosh13/geneval (MIT; Ghosh et al., arXiv:2310.11513).
Five people each gave an image a grade from 1 to 4. They did not compare, and have no names, so:

- Judgement k of an image is compared with judgement k of another system's image of the same
  prompt; the higher grade wins, equal grades are a tie.
- All comparisons of one prompt form a cluster, in place of those of one rater.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import DataError, os_errors_as
from wuerstchen.study.agreement import interval_distances, krippendorff_alpha, value_counts
from wuerstchen.study.votes import Choice, Vote, write_votes

SYSTEMS = {"clip": "CLIP retrieval", "sdv2": "SD 2.1", "if-xl": "IF-XL"}
"""Names by those of the files."""

GRADES = 4

Grades = Mapping[str, Mapping[str, Sequence[int]]]
"""Of each system: the grades of each image, by its number."""


def read_grades(folder: Path) -> tuple[Grades, int]:
    """The grades, and the number of rows; a few rows have no grade. Raises DataError."""
    found: dict[str, dict[str, list[int]]] = {}
    rows = 0
    for file, system in SYSTEMS.items():
        grades: dict[str, list[int]] = defaultdict(list)
        path = folder / f"annotations_{file}.csv"
        with os_errors_as(DataError), path.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                rows += 1
                if grade := row["Answer.task-quality"]:
                    grades[row["Input.index"]].append(int(grade))
        found[system] = grades
    return found, rows


def votes_of(grades: Grades, categories: Sequence[str]) -> Iterator[Vote]:
    """Comparisons of the images that each two systems made for the same prompt."""
    for a, b in combinations(grades, 2):
        for image in sorted(grades[a].keys() & grades[b].keys()):
            prompt, _, _ = image.partition("_")
            pairs = zip(grades[a][image], grades[b][image], strict=False)
            for number, (of_a, of_b) in enumerate(pairs):
                choice: Choice = "a" if of_a > of_b else "b" if of_b > of_a else "tie"
                category = categories[int(prompt)]
                yield Vote(f"prompt {prompt}", f"{image} {number} {a} {b}", a, b, choice, category)


def agreement(grades: Mapping[str, Sequence[int]]) -> tuple[float, float]:
    """Krippendorff's alpha of the grades of images, nominal and on the interval scale."""
    rated = [(unit, grade - 1) for unit, each in enumerate(grades.values()) for grade in each]
    units, values = (np.array(column) for column in zip(*rated, strict=True))
    counts = value_counts(units, values, GRADES)
    scale = interval_distances(range(GRADES))
    return krippendorff_alpha(counts), krippendorff_alpha(counts, scale)


def main(folder: Path, out: Path) -> None:
    """Write the votes, and print means and agreement of the grades."""
    grades, rows = read_grades(folder)
    with os_errors_as(DataError):
        lines = (folder / "evaluation_metadata.jsonl").read_text(encoding="utf-8").splitlines()
    categories = [str(json.loads(line)["tag"]) for line in lines]
    votes = list(votes_of(grades, categories))
    write_file(out, write_votes(votes))
    graded = sum(len(each) for images in grades.values() for each in images.values())
    print(f"{rows:,} judgements, {graded:,} with a grade, {len(votes):,} comparisons")
    for system, images in grades.items():
        mean = np.mean([grade for each in images.values() for grade in each])
        nominal, interval = agreement(images)
        print(
            f"{system}: mean grade {mean:.2f}, alpha {nominal:.2f} nominal, {interval:.2f} interval"
        )
    together = {f"{s} {image}": each for s in grades for image, each in grades[s].items()}
    nominal, interval = agreement(together)
    print(f"all images: alpha {nominal:.2f} nominal, {interval:.2f} interval")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
