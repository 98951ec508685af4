"""What is wrong with the rows of a record file, what they have, and whether a run would take them."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from pathlib import Path

import numpy as np

from config.progress import Progress

from .base import DataError, Edit
from .fields import FIELD_KEYS, RowReader, check_named_fields, held
from .source import RecordFile

SHOWN = 20
OTHERS = "others"
ROW = re.compile(r"row \d+ \(counted from 0\)")


def check_file(path: Path, reader: RowReader) -> bool:
    """Print what is wrong with the rows of a file, and counts; whether nothing is.

    Rows with the same fault share a line, which names the first of them.
    """
    records, good, broken = RecordFile(path, reader, 0), 0, ""
    firsts: dict[str, str] = {}
    faults, has = Counter[str](), Counter[str]()
    # 8 bytes a prompt, not the prompts: two million of them must not fill the memory
    prompts = array("q")
    try:
        for found in Progress(records.attempts(), path.name, unit=" rows", leave=False, delay=1, disable=None):
            if isinstance(found, Edit):
                good += 1
                prompts.append(hash(found.prompt))
                has.update(held(found))
                continue
            fault = ROW.sub("row", str(found))
            # as many kinds as are shown: a file may be bad in a million ways
            fault = fault if fault in firsts or len(firsts) < SHOWN else OTHERS
            firsts.setdefault(fault, str(found))
            faults[fault] += 1
        if good:
            check_named_fields((found for found in records.attempts() if isinstance(found, Edit)), reader.cfg, path)
        elif not faults:
            broken = f"{path}: holds no record that can be edited; there must be one at least"
    except DataError as error:
        broken = str(error)
    for fault, first in firsts.items():
        more = f" ({faults[fault] - 1} more rows like it)" if faults[fault] > 1 else ""
        print(f"{first}{more}" if fault != OTHERS else f"{path}: {faults[fault]} more rows are bad in other ways")
    bad, again = faults.total(), good - len(np.unique(prompts))
    print(f"{path}: {good + bad} rows, {good} good, {bad} bad, {again} duplicate prompts")
    optional = [key for key in FIELD_KEYS[2:] if getattr(reader.cfg.fields, key) is not None]
    if good and optional:
        print("  of the good rows have " + ", ".join(f"{key} {has[key]}" for key in optional))
    if broken:
        print(f"broken: {broken}")
    return not (bad or broken)
