#!/usr/bin/env python3
"""Runs the SQL of README.md, sql/README.md and docs/*.md.

    docs_check.py REMIGE [PAGE …]

The ```sql blocks of a page run in order on a fresh warehouse, each in a process of its own, from the top
of the repository. A block marked ```sql error TEXT must fail, and the message must hold TEXT. Places in
messages are places in the page.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"^```sql([^\n]*)\n(.*?)^```", re.M | re.S)


def blocks(text):
    """(line of the first statement, expected error or None, statements)"""
    for m in BLOCK.finditer(text):
        info = m.group(1).strip()
        if info and not info.startswith("error "):
            sys.exit(f"unknown mark ```sql {info}: use ```sql or ```sql error TEXT")
        yield text.count("\n", 0, m.start(2)), info[6:].strip() or None, m.group(2)


def run(remige, page, scratch):
    with open(page) as f:
        text = f.read()
    ran = 0
    script = os.path.join(scratch, os.path.basename(page) + ".sql")
    for line, error, sql in blocks(text):
        with open(script, "w") as f:
            f.write("\n" * line + sql)
        done = subprocess.run([remige, "sql", "-w", os.path.join(scratch, "warehouse"), "-f", script],
                              capture_output=True, text=True, timeout=300)
        ran += 1
        if error is None and done.returncode != 0:
            print(f"FAIL {page}:{line + 1}\n{done.stderr}")
            return False
        if error is not None and (done.returncode != 1 or error not in done.stderr):
            print(f"FAIL {page}:{line + 1}: exit code {done.returncode}, expected 1 with {error!r}\n{done.stderr}")
            return False
    print(f"ok   {page}: {ran} blocks")
    return True


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    remige = os.path.realpath(sys.argv[1])
    os.chdir(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    pages = sys.argv[2:] or ["README.md", "sql/README.md"] + sorted(glob.glob("docs/*.md"))
    ok = True
    for page in pages:
        scratch = tempfile.mkdtemp()
        try:
            ok &= run(remige, page, scratch)
        finally:
            shutil.rmtree(scratch)
    print("docs_check: " + ("passed" if ok else "FAILED"))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
