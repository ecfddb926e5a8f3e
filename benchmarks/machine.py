"""What the csv files say of the machine that measured."""

import os
import platform
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name as the operating system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """The processor, the number of cores, and the GPU where the scripts use one."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {os.cpu_count()} cores{gpu}"


def software() -> str:
    """The machine and PyTorch's version, by which times are told apart."""
    return f"{machine()}, torch {torch.__version__}"
