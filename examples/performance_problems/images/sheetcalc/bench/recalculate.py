"""A budget whose lines build upon one another, changed a few times; prints a digest of all values."""

import hashlib
import os
import random

from sheetcalc import Sheet

ROWS, CHANGES, BIG = 18, 2, 1_000_003


def budget(rng):
    sheet = Sheet()
    for row in range(1, ROWS + 1):
        sheet.set(f"A{row}", rng.randrange(1, 100))
        sheet.set(f"B{row}", f"=A{row}*{rng.randrange(2, 9)}-{rng.randrange(50)}")
        if row <= 2:
            sheet.set(f"C{row}", f"=B{row}+1")
        else:
            sheet.set(f"C{row}", f"=C{row - 1}+B{row}" + (f"-C{row - 2}" if row % 2 else f"+MIN(A{row}:B{row})"))
        sheet.set(f"D{row}", f"=MAX(B1:B{row})-MIN(A{row}:C{row})+COUNT(A1:C{row})")
    sheet.set("E1", f"=SUM(D1:D{ROWS})")
    return sheet


def main():
    rng = random.Random(os.environ.get("BENCH_SEED", "0"))
    sheet = budget(rng)
    digest = hashlib.sha256()
    for _ in range(CHANGES):
        sheet.set(f"A{rng.randrange(1, 4)}", rng.randrange(100))
        digest.update(repr([value % BIG for value in sheet.values().values()]).encode())
    print("values", digest.hexdigest())


if __name__ == "__main__":
    main()
