"""What the csv files say of the machine that measured."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name as the operating system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """The processor and the number of cores."""
    return f"{processor()}, {os.cpu_count()} cores"
