"""The report as one HTML page: which sections there are, in which order, and what stands in the first ones.

A section is a function of the data that returns HTML, or nothing where the run has no such stage. Those about models
and about the run itself stand in `stages/report_models.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages import report_charts as charts
from stages import report_models as models
from stages import report_quality as quality
from stages.report_assets import SCRIPT, STYLE, content_policy, packed_plotly
from stages.report_data import ReportData
from stages.report_html import (
    Html,
    code,
    differing,
    element,
    escape,
    figure,
    join,
    marked,
    paragraph,
    share,
    size,
    table,
)  # fmt: skip
from stages.report_judges import judges
from stages.report_models import Occasion

Row = Mapping[str, Any]
REASONS_SHOWN = 8
REPEATS_SHOWN = 10
DECIDING = ("filter", "deduplicate", "select")


def page(data: ReportData, occasion: Occasion) -> str:
    """The whole page as text.

    Parameters
    ----------
    data
        What was read from the outputs.
    occasion
        Which run it was, and when the page was written.
    """
    sections: tuple[tuple[str, Callable[[], Html]], ...] = (
        ("Funnel", lambda: funnel(data)),
        ("Sources", lambda: sources(data)),
        ("Lengths and languages", lambda: quality.languages(data)),
        ("Rules", lambda: quality.rules(data)),
        ("Features", lambda: quality.features(data)),
        ("Judges", lambda: judges(data)),
        ("Duplicates", lambda: duplicates(data)),
        ("Contamination", lambda: contamination(data)),
        ("Samples", lambda: samples(data)),
        ("Tokens", lambda: models.tokens(data)),
        ("Training", lambda: models.training(data)),
        ("Evaluation", lambda: models.evaluation(data)),
        ("Fine-tuning", lambda: models.finetuning(data)),
        ("Release", lambda: models.release(data)),
        ("Lineage", lambda: models.lineage(data)),
        ("How to go on", lambda: models.going_on(data, occasion)),
    )
    filled = [(title, title.lower().replace(" ", "-"), content) for title, make in sections if (content := make())]
    entries = (element("li", element("a", title, href=f"#{anchor}")) for title, anchor, _ in filled)
    body = join(
        [
            models.header(data, occasion),
            element("nav", element("ul", *entries), aria_label="Sections"),
            element(
                "p", "The charts need a browser with JavaScript (of 2023 or later). Their numbers stand below each.",
                id="no-charts", class_="soft", hidden="",
            ),
            *(
                element("section", element("h2", title, id=anchor), content, aria_labelledby=anchor)
                for title, anchor, content in filled
            ),
        ],
        "\n",
    )  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(content_policy()).replace("&#x27;", "&#39;")}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(occasion.run)} – Gristmill report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n"
        f'<script type="text/plain" id="plotly">{packed_plotly()}</script>\n<script>{SCRIPT}</script>\n'
        "</body>\n</html>\n"
    )


# ------------------------------------------------------------------------------------------------ the funnel


def funnel(data: ReportData) -> Html:
    """What every stage read, kept, dropped and put aside."""
    rows = []
    for row in data.funnel:
        dropped, aside = sum(row["dropped"].values()), sum(row["quarantined"].values())
        total = row["kept"] + dropped + aside
        if row["stage"] == "report" or not row["read"]:
            continue
        sign = "=" if total == row["read"] else "≠"
        adds = element("span", f"{sign} {row['kept']:,} + {dropped:,} + {aside:,}", class_="adds")
        rows.append(
            (row["stage"], row["read"], row["kept"], dropped, aside, adds, _reasons(row["dropped"], row["quarantined"]))
        )
    header = ("stage", "read", "kept", "dropped", "quarantined", "read = kept + dropped + quarantined", "why")
    note = (
        "Every record is accounted for: read = kept + dropped + quarantined, at every stage. A decision carries what "
        "was dropped before it: the reason “filter” of deduplicate and select is what filter dropped."
    )
    return join(
        [
            paragraph(note, class_="soft"),
            figure(charts.funnel(data.funnel), "From text to training set"),
            table("Records and documents by stage", header, rows) or paragraph("Nothing was read."),
        ]
    )


def _reasons(*counts: Mapping[str, int]) -> Html:
    pairs = sorted((pair for some in counts for pair in some.items()), key=lambda pair: (-pair[1], pair[0]))
    items = [element("li", name, " ", element("b", number)) for name, number in pairs]
    if len(items) <= REASONS_SHOWN + 1:
        return element("ul", *items, class_="reasons wide") if items else Html("")
    rest = sum(number for _, number in pairs[REASONS_SHOWN:])
    more = element("summary", f"{len(items) - REASONS_SHOWN} more reasons ", element("b", rest))
    first = element("ul", *items[:REASONS_SHOWN], class_="reasons wide")
    return join([first, element("details", more, element("ul", *items[REASONS_SHOWN:], class_="reasons"))])


# ------------------------------------------------------------------------------------------------ sources


def sources(data: ReportData) -> Html:
    """Where the text comes from, what could not be read, what was repaired, what will be cut."""
    scanned = {row["source"]: row for row in data.scan.sources}
    empty = {"documents": 0, "bytes": 0, "selected": 0, "selected_bytes": 0}
    files = {row["source"]: row for row in data.files}
    rows = []
    for source in [*scanned, *(name for name in files if name not in scanned)]:
        found, read = scanned.get(source, empty), files.get(source, {})
        rows.append(
            (
                source, read.get("files"), size(read.get("bytes", 0)), read.get("records"), read.get("quarantined"),
                found["documents"], size(found["bytes"]), found["selected"],
                share(found["selected"], found["documents"]), size(found["selected_bytes"]),
            )
        )  # fmt: skip
    header = (
        "source", "files", "on disk", "records", "quarantined", "documents", "text", "selected", "share",
        "text selected",
    )  # fmt: skip
    pieces = [table("Sources", header, rows), quality.fates(data, "source")]
    if len(data.scan.sources) > 1:
        pieces.insert(0, figure(charts.shares_by_group(data.scan.sources, "source", "source"), "Documents by source"))
    gone = sum(row.get("tombstones", 0) for row in data.files)
    if gone:
        pieces.append(paragraph(f"{gone:,} input files of earlier runs are gone; the ledger marks them."))
    if data.quarantined:
        shown = [
            (row["error"], _place(row), element("span", row["message"]), _wide(row["excerpt"][:200]))
            for row in data.quarantined
        ]
        pieces.append(element("h3", "What could not be read"))
        pieces.append(table("A few records of every error", ("error", "record", "message", "begins"), shown))
    if data.normalised:
        repairs = sorted(data.normalised.items(), key=lambda pair: (-pair[1], pair[0]))
        pieces.append(element("h3", "Repairs of the text"))
        pieces.append(table("Documents changed by each repair", ("repair", "documents"), repairs))
    if data.cuts:
        cuts = [(row["reason"], row["documents"], row["passages"], size(row["bytes"])) for row in data.cuts]
        pieces.append(element("h3", "Passages cut where text leaves the house"))
        pieces.append(table("Cuts", ("reason", "documents", "passages", "text"), cuts))
    if data.repeats and data.repeats["most"]:
        most = [(row["documents"], row["kind"], _wide(row["text"])) for row in data.repeats["most"][:REPEATS_SHOWN]]
        pieces.append(table("What stands in most documents", ("documents", "kind", "text"), most))
    return join(pieces)


def _place(row: Row) -> Html:
    return Html(f"{escape(row['source'])}:{escape(row['uri'])}#{row['record']}")


def _wide(text: str) -> Html:
    return element("bdi", text)


# ------------------------------------------------------------------------------------------------ duplicates


def duplicates(data: ReportData) -> Html:
    """What was compared, how candidates are found, how similar the duplicates are, the largest clusters."""
    statistics, parameters = data.duplicates["statistics"], data.duplicates["parameters"]
    meanings = (
        ("documents", "eligible documents compared"),
        ("exact", "exact copies"),
        ("near", "near-duplicates, every one verified on the text"),
        ("candidates", "candidate pairs (they share a band of their signatures)"),
        ("verified", "candidate pairs compared exactly"),
        ("capped", "documents not compared with all others of a full bucket"),
        ("without_words", "documents without words, compared as exact copies only"),
    )
    rows = [(meaning, statistics[name]) for name, meaning in meanings if name in statistics]
    pieces: list[Any] = [table("Duplicates", ("", "number"), rows)]
    if "recall" in statistics:
        pieces.append(_recall(statistics))
    if parameters.get("mode") == "only-report":
        pieces.append(paragraph("The mode is only-report: duplicates are pointed out, none is dropped."))
    if parameters.get("mode") == "drop-all":
        pieces.append(paragraph("The mode is drop-all: what others are duplicates of is dropped too."))
    curve = charts.candidate_curve(parameters["bands"], parameters["rows"], parameters["threshold"])
    drawn = [figure(curve, "Which pairs become candidates")]
    if sum(data.duplicates["similarities"]):
        histogram = charts.similarity_histogram(data.duplicates["similarities"], parameters["threshold"])
        drawn.append(figure(histogram, "How similar near-duplicates are"))
    pieces.append(element("div", *drawn, class_="pair"))
    if data.duplicates["clusters"]:
        pieces.append(element("h3", "The largest clusters"))
        pieces += [_cluster(cluster) for cluster in data.duplicates["clusters"]]
    return join(pieces)


def _recall(statistics: Row) -> Html:
    """What the bands and full buckets may have cost, in all and by similarity."""
    said = f"Estimated from the curve of the bands, {statistics['recall']:.2%} of the near-duplicates were found."
    if statistics["capped"]:
        said += f" Should every document of a full bucket be one that was missed, {statistics['recall_at_least']:.2%}."
    rows = [
        (f"from {row['from']:.3f}", row["near"], f"{row['recall']:.4f}", f"{row['missed']:.1f}")
        for row in statistics["recall_by_similarity"]
    ]
    header = ("similarity", "near-duplicates", "recall", "missed, estimated")
    return join([paragraph(said), table("Recall by similarity", header, rows)] if rows else [paragraph(said)])


def _cluster(cluster: Row) -> Html:
    keeper = cluster["keeper"]
    number = "one duplicate" if cluster["size"] == 1 else f"{cluster['size']:,} duplicates"
    head = element("summary", f"{number} of ", _place(keeper))
    pieces = []
    for member in cluster["members"]:
        kind = "exact copy" if member["identical"] else f"similarity {member['similarity']:.3f}"
        start = f", both from character {member['start']:,} on" if member["start"] else ""
        left = element(
            "div", paragraph("Stays: ", _place(keeper), " ", code(keeper["id"]), class_="place"),
            differing(member["keeper_text"], member["text"]),
        )  # fmt: skip
        right = element(
            "div",
            paragraph(f"Duplicate ({kind}{start}): ", _place(member), " ", code(member["id"]), class_="place"),
            differing(member["text"], member["keeper_text"]),
        )
        pieces.append(element("div", left, right, class_="pair"))
    return element("details", head, *pieces)


def contamination(data: ReportData) -> Html:
    """Which evaluation items stand in the corpus, and where."""
    sets, limit = data.contamination["sets"], data.contamination["limit"]
    if not sets:
        return Html("")
    rows = [
        (
            row["eval_set"], row["items"], row["unsearched"], row["items_hit"], share(row["items_hit"], row["items"]),
            row["documents"], row["dropped"],
        )
        for row in sets
    ]  # fmt: skip
    header = (
        "evaluation set", "items", "not looked for", "items found", "share", "texts that share some", "of them dropped"
    )  # fmt: skip
    counts = data.contamination["counts"]
    note = "An item counts as found if a document holds a stored share of its n-grams. Copies of a text count once."
    said = "Nothing is dropped for it." if limit is None else f"From an overlap of {limit:g} a document is dropped."
    unsearched = (
        f"Not looked for: {counts['short_items']:,} items of too few words, {counts['stock_items']:,} of stock phrases "
        f"only ({counts['stock_phrases']:,} of {counts['ngrams']:,} n-grams)."
    )
    pieces = [
        paragraph(f"{note} {said} {unsearched}", class_="soft"),
        table("Overlap with evaluation sets", header, rows),
    ]
    unread = [(row["eval_set"], error, number) for row in sets for error, number in row["unread"].items()]
    pieces.append(
        table("Records that could not be read: not looked for", ("evaluation set", "error", "records"), unread)
    )
    for row in sets:
        if row["found"]:
            shown = [
                (
                    f"{one['overlap']:.2f}", one["eval_item"], one["documents"],
                    _place(one) if "uri" in one else code(one["id"]), _wide(one["text"][:240]),
                )
                for one in row["found"]
            ]  # fmt: skip
            columns = ("overlap", "item", "texts that share some", "one that shares most", "shared text")
            found = f"Found of {row['eval_set']}: {row['items_hit']:,}"
            most = f", of which {len(shown)} with the largest overlaps" if row["items_hit"] > len(shown) else ""
            listed = table(f"Largest overlaps with {row['eval_set']}", columns, shown)
            pieces.append(element("details", element("summary", found, most), listed))
    return join(pieces)


# ------------------------------------------------------------------------------------------------ samples


def samples(data: ReportData) -> Html:
    """Real documents, kept and dropped, by reason."""
    if not data.samples:
        return Html("")
    meanings = {rule["name"]: rule["reason"] for rule in data.rules}
    numbers: dict[str, int] = {}
    for row in data.funnel:
        if row["stage"] in DECIDING:
            numbers.update(row["dropped"])
            numbers["kept"] = row["kept"]
    order: Sequence[str] = sorted(data.samples, key=lambda name: (name != "kept", -numbers.get(name, 0), name))
    note = "Taken by the smallest ids, which are hashes of the texts: a fair sample, and the same one every time."
    pieces: list[Any] = [paragraph(note, class_="soft")]
    for reason in order:
        number = numbers.get(reason, 0)
        note = f"{number:,} {'document' if number == 1 else 'documents'}"
        note += f", {meanings[reason]}" if meanings.get(reason) else ""
        title = element("summary", element("strong", reason), " – ", element("span", note, class_="soft"))
        shown = []
        for entry in data.samples[reason]:
            shown += _sample(entry)
        pieces.append(element("details", title, *shown, open="" if reason == "kept" else None))
    return join(pieces)


def _sample(entry: Row) -> list[Html]:
    """A document: where it stands, what was measured of it, its beginning and its marked passages."""
    said = [_place(entry), " ", code(entry["id"])]
    if entry["measured"] is not None:
        values = (f"{name} = {_value(value)}" for name, value in entry["measured"]["values"].items())
        said += [Html("<br>"), ", ".join(values), "; dropped where ", entry["measured"]["drops_if"]]
    if entry["keeper"] is not None:
        said += [Html("<br>"), "stays: ", _place(entry["keeper"]), f", similarity {entry['keeper']['similarity']:.3f}"]
    shown = [paragraph(*said, class_="place")]
    for passage in entry["passages"]:
        cut = passage["start"] + len(passage["text"]) < entry["characters"]
        shown.append(marked(passage["text"], passage["marks"], cut=cut, begun=passage["start"] > 0))
    return shown


def _value(value: Any) -> str:
    return "nothing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["Occasion", "page"]
