"""`python -m train` in one of several processes, whose main process has torchrun stopped at a given step.

    torchrun --standalone --nproc-per-node 2 tests/train/stopped_process_group.py EPOCH STEP fit ...

Before that step the main process sends SIGTERM to torchrun, and continues when torchrun has forwarded it.
"""

import os
import signal
import socket
import sys

from train.__main__ import main
from train.launcher import is_main_process
from train.trainer import Trainer

STOP_AT = int(sys.argv.pop(1)), int(sys.argv.pop(1))

train_step = Trainer.train_step


def train_step_or_be_stopped(trainer, stop):
    if is_main_process() and (trainer.epoch, trainer.step) == STOP_AT:
        coming, signals = socket.socketpair()
        signals.setblocking(False)
        signal.set_wakeup_fd(signals.fileno())
        os.kill(os.getppid(), signal.SIGTERM)
        coming.recv(1)
    return train_step(trainer, stop)


Trainer.train_step = train_step_or_be_stopped
main()
