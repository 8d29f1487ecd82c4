"""`python -m train` in a process of a team, but at some step the leader has torchrun stopped.

    torchrun --standalone --nproc-per-node 2 tests/train/stopped_team.py EPOCH STEP fit ...

Before that step the leader sends SIGTERM to torchrun, and goes on when torchrun has passed it on.
"""

import os
import signal
import socket
import sys

from charlm import cli
from train.__main__ import main
from train.distributed import is_leader
from train.trainer import Trainer

STOP_AT = int(sys.argv.pop(1)), int(sys.argv.pop(1))

train_step = Trainer._train_step


def train_step_or_be_stopped(trainer, stop):
    if is_leader() and (trainer.epoch, trainer.step) == STOP_AT:
        coming, signals = socket.socketpair()
        signals.setblocking(False)
        signal.set_wakeup_fd(signals.fileno())
        os.kill(os.getppid(), signal.SIGTERM)
        coming.recv(1)
    return train_step(trainer, stop)


Trainer._train_step = train_step_or_be_stopped
sys.exit(cli.run(main))
