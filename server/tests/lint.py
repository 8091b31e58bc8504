"""Checks the files of deploy/ with the linter of each kind.

    python lint.py DIR

Nothing is started: there need not be a container engine. A tool of the system that is not there, such as
systemd-analyze, is passed over with a line that says so.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

BIN = pathlib.Path(sys.executable).parent

# Of 100, as `systemd-analyze security` counts: what is left is the network and a few system calls.
EXPOSURE = 20


def main(directory):
    directory = pathlib.Path(directory)
    checks = [
        [BIN / "cfn-lint", "--", directory / "cloudformation.yaml"],
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", directory / "compose.yaml"],
        [BIN / "kubernetes-validate", "--strict", directory / "kubernetes.yaml"],
        [BIN / "hadolint", "--failure-threshold", "style", directory / "Dockerfile", directory / "emulator/Dockerfile"],
    ]
    with ThreadPoolExecutor() as pool, tempfile.TemporaryDirectory() as temporary:
        failed = [said for said in pool.map(run, checks) if said]
        failed += systemd(directory / "millstream.service", pathlib.Path(temporary))
    if failed:
        sys.exit("\n".join(failed))


def run(command, silent=False):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=110)
    said = f"{done.stdout}{done.stderr}".strip()
    return f"{command[0].name}: {said}" if done.returncode or silent and said else None


def systemd(unit, temporary):
    """The unit as it is, but for the binary, which is not installed."""
    if not shutil.which("systemd-analyze"):
        print("systemd-analyze is not there: the unit is not checked")
        return []
    text = unit.read_text(encoding="utf-8")
    assert "ExecStart=/usr/local/bin/millstream run" in text, text
    copy = temporary / unit.name
    copy.write_text(text.replace("ExecStart=/usr/local/bin/millstream", "ExecStart=/bin/true"), encoding="utf-8")
    analyze = pathlib.Path("systemd-analyze")
    # What it does not know it ignores, and says so.
    verified = run([analyze, "verify", "--man=no", copy], silent=True)
    secure = run([analyze, "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", copy])
    return [said for said in (verified, secure) if said]


main(*sys.argv[1:])
