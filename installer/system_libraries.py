"""Find the system libraries Qt needs on Linux; install them as root on Debian and Ubuntu, else name them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

PACKAGE_OF = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libwayland-cursor.so.0": "libwayland-cursor0",
}
"""Debian's package of each library that the Qt wheels expect of the system."""


def missing_packages() -> list[str]:
    """Return Debian's names of the packages whose library cannot be loaded."""
    packages = []
    for library, package in PACKAGE_OF.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            packages.append(package)
    fonts = any(
        os.path.isdir(folder) and os.listdir(folder)
        for folder in ("/usr/share/fonts", "/usr/local/share/fonts")
    )
    return packages if fonts else [*packages, "fonts-dejavu-core"]


def main() -> int:
    """Check, install where that is possible, and say what is left to do."""
    if not sys.platform.startswith("linux"):
        return 0
    missing = missing_packages()
    if not missing:
        return 0
    line = f"apt-get install -y {' '.join(missing)}"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stdout.write(f"Installing what the window needs: {' '.join(missing)}\n")
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-q"], check=False, **quiet)  # type: ignore[call-overload]
        subprocess.run(line.split(), check=False, **quiet)  # type: ignore[call-overload]
        missing = missing_packages()
        if not missing:
            return 0
    sys.stderr.write(
        f"The window needs system libraries that are missing: {', '.join(missing)}.\n"
        f"On Debian or Ubuntu install them with: sudo {line}\n"
        "Other systems have them under similar names; the command line works without them.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
