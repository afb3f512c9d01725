"""A SLURM cluster on this machine: munge, a controller, and two nodes on loopback.

Everything is of this user and in one folder, on ports of its own: a SLURM that the
machine already has is not touched. Nodes are two `slurmd` of the same machine, which
Debian's build of SLURM allows as long as they are called differently.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from two_processes import free_port

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue")
# Daemons lie where only root looks.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# JAX finds the first process by the name of its node, which must lead here.
NODES = (socket.gethostname(), f"{socket.gethostname()}-second")

CONFIGURATION = """
ClusterName=here
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job put back waits until its credentials have expired: 2 minutes if not told.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
# Nodes may be said to be larger than they are.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
NodeName={node} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName={second} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return SLURM's programs that this machine does not have."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """A running cluster; use it in a `with`, which ends jobs and daemons.

    Attributes:
        folder: Where everything of it lies.
    """

    def __init__(self, folder: Path):
        self.folder, self._daemons = folder, []
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        folder.chmod(0o711)  # munge refuses a folder that others may write to
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                node=NODES[0],
                second=NODES[1],
                user=getpass.getuser(),
                folder=folder,
                ports=[free_port() for _ in range(3)],
            )
        )
        self._environment = os.environ | {
            "PATH": PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def __enter__(self) -> "Cluster":
        """Start the daemons and wait until both nodes are idle."""
        files = {
            "socket": "munge.socket",
            "key-file": "munge.key",
            "log-file": "munged.log",
            "pid-file": "munged.pid",
            "seed-file": "munged.seed",
        }
        named = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._start("munged", "--foreground", "--force", *named)
        self.wait(lambda: (self.folder / "munge.socket").exists(), 30)
        self._start("slurmctld", "-D", "-c")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        idle = ["sinfo", "--noheader", "--Node", "--format=%T"]
        self.wait(lambda: self.ask(*idle, check=False).split() == ["idle"] * 2, 60)
        return self

    def __exit__(self, *_: object) -> None:
        """End what runs, daemons last."""
        self.ask("scancel", f"--user={getpass.getuser()}", check=False)
        try:
            self.wait(lambda: not self.ask("squeue", "--noheader", check=False), 90)
        finally:
            for daemon in reversed(self._daemons):
                daemon.terminate()
            for daemon in self._daemons:
                daemon.wait(60)

    def _start(self, program: str, *arguments: str) -> None:
        log = self.folder / f"{program}{len(self._daemons)}.out"
        with log.open("w") as file:
            daemon = subprocess.Popen(
                [shutil.which(program, path=PATH), *arguments],
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        self._daemons.append(daemon)

    def ask(
        self,
        *command: str,
        check: bool = True,
        folder: Path = REPOSITORY,
        **variables: str,
    ) -> str:
        """Run a command of the cluster in a folder; return what it says."""
        done = subprocess.run(
            command,
            env=self._environment | variables,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Return a job's state, as SLURM calls it."""
        told = self.ask("scontrol", "--oneliner", "show", "job", job)
        return told.split("JobState=")[1].split()[0]

    def ended(self, job: str, limit: float) -> tuple[str, int, int]:
        """Wait for a job; return its state, exit code and the signal that ended it."""
        over = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
        self.wait(lambda: self.state(job) in over, limit)
        told = self.ask("scontrol", "--oneliner", "show", "job", job)
        code, signal = told.split(" ExitCode=")[1].split()[0].split(":")
        return self.state(job), int(code), int(signal)

    @staticmethod
    def wait(ready, limit: float) -> None:
        """Return as soon as `ready()`."""
        end = time.monotonic() + limit
        while not ready():
            assert time.monotonic() < end, "it never came to what was waited for"
            time.sleep(0.2)
