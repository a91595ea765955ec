"""How well captions tell micrographs from other figures.

    python benchmarks/bench_captions.py --data FOLDER [--out benchmarks/results/captions-DATE.json]

FOLDER holds `captions.jsonl`, `microscopy_titles_from_jarvis_leaderboard.jsonl` and
`chemnlp_cond_mat_small.csv` of the shared test data. Precision and recall of "is an STM, STEM or TEM
micrograph" with Wilson 95 % intervals, and the modality, on both halves of the labels in
tests/literature/labels (the rule of labelling stands there). Rules and confidences were set on the tune
half alone. The intervals take captions as independent; those of one article are not quite, so the share of
articles without any error stands beside them. Further: in how many titles that are known to name STM, STEM
or TEM a keyword is found (one half of them served to complete the keywords), and in how many condensed-
matter abstracts.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import re
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from _machine import machine_facts

from atomvision_hub._files import write_json
from atomvision_hub.literature.formulas import formulas
from atomvision_hub.literature.relevance import Assessment, assess

LABELS = Path(__file__).resolve().parents[1] / "tests" / "literature" / "labels" / "captions.jsonl"
TITLES = "microscopy_titles_from_jarvis_leaderboard.jsonl"
TECHNIQUE = re.compile(r"TEM|STM|HAADF|(?i:transmission electron|tunnel)")
Scored = tuple[dict[str, Any], Assessment]


def wilson(hits: int, trials: int, z: float = 1.959964) -> dict[str, Any]:
    """Share of hits with its 95 % interval (Wilson 1927, J. Am. Stat. Assoc. 22, 209)."""
    if not trials:
        return {"hits": 0, "of": 0, "value": None, "low": None, "high": None}
    share = hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    bounds = {"low": round(max(0.0, middle - half), 4), "high": round(min(1.0, middle + half), 4)}
    return {"hits": hits, "of": trials, "value": round(share, 4), **bounds}


def scores(rows: list[Scored]) -> dict[str, Any]:
    """Precision and recall of `relevant`, of each modality, and how sure the answers were."""
    right = sum(label["relevant"] and found.relevant for label, found in rows)
    by_article: dict[str, list[bool]] = defaultdict(list)
    bins: dict[float, list[bool]] = defaultdict(list)
    for label, found in rows:
        by_article[label["id"]].append(label["relevant"] == found.relevant)
        bins[found.confidence].append(label["relevant"] == found.relevant)
    modalities = {}
    for name in sorted({label["modality"] for label, _ in rows} | {found.modality for _, found in rows}):
        both = sum(label["modality"] == found.modality == name for label, found in rows)
        modalities[name] = {
            "precision": wilson(both, sum(found.modality == name for _, found in rows)),
            "recall": wilson(both, sum(label["modality"] == name for label, _ in rows)),
        }
    return {
        "captions": len(rows),
        "precision": wilson(right, sum(found.relevant for _, found in rows)),
        "recall": wilson(right, sum(label["relevant"] for label, _ in rows)),
        "modality": wilson(sum(label["modality"] == found.modality for label, found in rows), len(rows)),
        "articles_without_error": wilson(sum(map(all, by_article.values())), len(by_article)),
        "modalities": modalities,
        "right_by_confidence": {
            str(level): wilson(sum(values), len(values)) for level, values in sorted(bins.items())
        },
    }


def labelled(captions: Path) -> dict[str, Any]:
    """Scores of both halves, with all labels and with the doubtful ones left out."""
    texts = {}
    for line in captions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts[hashlib.sha256(row["caption"].encode()).hexdigest(), row["paper"]] = row["caption"]
    labels = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    started = time.process_time()
    found = [(label, assess(texts[label["sha256"], label["id"]])) for label in labels]
    seconds = time.process_time() - started
    result: dict[str, Any] = {"microseconds_per_caption": round(1e6 * seconds / len(found))}
    for half in ("tune", "test"):
        rows = [(label, answer) for label, answer in found if label["split"] == half]
        result[half] = scores(rows)
        result[f"{half}_without_doubtful"] = scores([row for row in rows if not row[0]["doubtful"]])
    return result


def third_party(captions: Path) -> dict[str, Any]:
    """Agreement with labels of others: techniques that a vision model (GPT-4V) named, seeing the images.

    Its figures hold at least one micrograph of any kind each; its labels are not checked by hand either.
    """
    table = {"both": 0, "only_ours": 0, "only_theirs": 0, "neither": 0}
    for row in map(json.loads, captions.read_text(encoding="utf-8").splitlines()):
        if isinstance(row.get("label"), dict) and len(row["caption"].split()) > 2:
            theirs = any(TECHNIQUE.search(name) for name in row["label"])
            ours = assess(row["caption"]).relevant
            name = {(True, True): "both", (True, False): "only_ours", (False, True): "only_theirs"}
            table[name.get((ours, theirs), "neither")] += 1
    return table


def keywords_in_titles(path: Path) -> dict[str, Any]:
    """Titles known to name STM, STEM or TEM: share with a keyword found, by half as for the labels."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    halves: dict[str, list[bool]] = {"tune": [], "test": []}
    for row in rows:
        half = "test" if hashlib.sha256(row["id"].encode()).digest()[0] & 1 else "tune"
        halves[half].append(bool(assess("", title=row["title"]).matched))
    return {half: wilson(sum(values), len(values)) for half, values in halves.items()}


def formulas_in_titles(path: Path) -> dict[str, Any]:
    """Precision and recall of formulas on the labelled titles, by formula; titles without any error."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    texts = {row["id"]: row["title"] for row in rows}
    labels = LABELS.with_name("formulas.jsonl").read_text(encoding="utf-8").splitlines()
    right = found = wanted = exact = 0
    for label in map(json.loads, labels):
        true, read = set(label["formulas"]), set(formulas(texts[label["id"]]))
        right, found, wanted = right + len(true & read), found + len(read), wanted + len(true)
        exact += true == read
    return {
        "precision": wilson(right, found),
        "recall": wilson(right, wanted),
        "titles_without_error": wilson(exact, len(labels)),
    }


def keywords_in_abstracts(path: Path) -> dict[str, Any]:
    """Condensed-matter abstracts of all kinds: share in which a keyword is found, and which keywords."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [(row["title"], row["abstract"]) for row in csv.DictReader(stream)]
    found = [assess("", title=title, abstract=abstract).matched for title, abstract in rows]
    counts = Counter(keyword for names in found for keyword in names)
    return {"any": wilson(sum(map(bool, found)), len(found)), "keywords": dict(sorted(counts.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = machine_facts()
    result = {
        "labels_sha256": hashlib.sha256(LABELS.read_bytes()).hexdigest(),
        "labelled_captions": labelled(options.data / "captions.jsonl"),
        "agreement_with_image_labels": third_party(options.data / "captions.jsonl"),
        "titles": keywords_in_titles(options.data / TITLES),
        "formulas": formulas_in_titles(options.data / TITLES),
        "abstracts": keywords_in_abstracts(options.data / "chemnlp_cond_mat_small.csv"),
        "machine": machine,
    }
    out = options.out or Path(__file__).parent / "results" / f"captions-{machine['date'][:10]}.json"
    write_json(out, result)
    for half in ("tune", "test", "test_without_doubtful"):
        part = result["labelled_captions"][half]
        for name in ("precision", "recall", "modality"):
            value = part[name]
            print(
                f"{half:22} {name:10} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
                f"  {value['hits']} of {value['of']}"
            )
    for name in ("agreement_with_image_labels", "titles", "formulas", "abstracts"):
        print(f"{name} {result[name]}")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
