"""``index.html``: one page over all results and reports of a folder, written line by line."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from vidanon.errors import OutputError
from vidanon.jobs.manifest import DONE, Record
from vidanon.leftovers import remove_leftovers

NAME = "index.html"

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>vidanon batch</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse } td, th { padding: .25rem .75rem; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #ddd } .n { text-align: right } .failed { background: #fdecea }
</style>
<h1>Results</h1>
<p>No person is promised to be unrecognisable: see the reports, and watch the results.</p>
<table><tr><th>file<th>status<th class=n>people<th class=n>frames<th class=n>replaced<th class=n>obscured\
<th class=n>seconds<th>report<th>remarks
"""


def write_index(path: Path, records: Iterable[Record]) -> None:
    """Write the page in one step.

    Raises:
        OutputError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    remove_leftovers(path)
    try:
        with part.open("w", encoding="utf-8", errors="replace") as file:
            for text in _page(records):
                file.write(text)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}); free space") from error
    finally:
        part.unlink(missing_ok=True)


def _page(records: Iterable[Record]) -> Iterator[str]:
    yield _HEAD
    for record in records:
        numbers = (record.people, record.frames, record.replaced, record.obscured, f"{record.seconds:.1f}")
        cells = [_link(record.output, record.source), record.status]
        cells += [f"<span class=n>{number}</span>" if record.status == DONE else "" for number in numbers]
        cells += [_link(record.report, "report") if record.report else ""]
        cells += [html.escape("; ".join(filter(None, (record.error, *record.notes))))]
        yield f"<tr class={record.status}><td>" + "<td>".join(cells) + "\n"
    yield "</table></html>\n"


def _link(target: str, text: str) -> str:
    shown = html.escape(text)
    return f'<a href="{quote(os.fsencode(target))}">{shown}</a>' if target else shown
